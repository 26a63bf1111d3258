/*
 * json_text.h
 *
 * jsonb as text, for frames.
 */
#ifndef EO_JSON_TEXT_H
#define EO_JSON_TEXT_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * Appends the text of a jsonb value, the same that jsonb's output function
 * makes, in the database's encoding.
 */
extern void eo_json_text(StringInfo out, Jsonb *value);

#endif							/* EO_JSON_TEXT_H */
