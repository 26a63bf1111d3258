/*
 * topics.h
 *
 * Topic patterns, and counts by topic.
 */
#ifndef EO_TOPICS_H
#define EO_TOPICS_H

#include "nodes/pg_list.h"
#include "utils/array.h"

/* Whether a pattern, in which '*' stands for any characters, matches. */
extern bool eo_topic_matches(const char *pattern, const char *topic, int len);

/* An EoTopicFilter (store/log_reader.h); arg is a List of patterns (char *). */
extern bool eo_topic_filter(const char *topic, int len, void *arg);

/* text[] as a List of char *. */
extern List *eo_topic_patterns(ArrayType *array);

#endif							/* EO_TOPICS_H */
