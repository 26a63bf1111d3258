/*
 * json_text.c
 *
 * jsonb as text, for frames.
 *
 * PostgreSQL's JsonbToCString() copies each string and then escapes it byte by
 * byte; that was three quarters of what the relay did.  Here strings go from
 * the datum to the output in runs that need no escape.
 */
#include "postgres.h"

#include "relay/json_text.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* What a byte needs: itself, a letter after a backslash, or \u00XX. */
#define PLAIN	0
#define HEX		1

static const char escapes[256] = {
	[0x00] = HEX,[0x01] = HEX,[0x02] = HEX,[0x03] = HEX,
	[0x04] = HEX,[0x05] = HEX,[0x06] = HEX,[0x07] = HEX,
	['\b'] = 'b',['\t'] = 't',['\n'] = 'n',[0x0b] = HEX,
	['\f'] = 'f',['\r'] = 'r',[0x0e] = HEX,[0x0f] = HEX,
	[0x10] = HEX,[0x11] = HEX,[0x12] = HEX,[0x13] = HEX,
	[0x14] = HEX,[0x15] = HEX,[0x16] = HEX,[0x17] = HEX,
	[0x18] = HEX,[0x19] = HEX,[0x1a] = HEX,[0x1b] = HEX,
	[0x1c] = HEX,[0x1d] = HEX,[0x1e] = HEX,[0x1f] = HEX,
	['"'] = '"',['\\'] = '\\',
};

/*
 * Whether any of eight bytes needs an escape: is below 0x20, a quotation mark or
 * a backslash.  May say so of a byte behind one that does, never miss one.
 */
static inline bool
any_escape(const char *bytes)
{
	const uint64 ones = UINT64CONST(0x0101010101010101);
	const uint64 tops = ones << 7;
	uint64		word;
	uint64		quote;
	uint64		backslash;

	memcpy(&word, bytes, sizeof(word));
	quote = word ^ (ones * '"');
	backslash = word ^ (ones * '\\');
	return (((word - ones * 0x20) & ~word) |
			((quote - ones) & ~quote) |
			((backslash - ones) & ~backslash)) & tops;
}

static void
append_string(StringInfo out, const char *string, int len)
{
	const char *run = string;
	const char *end = string + len;

	enlargeStringInfo(out, len + 2);
	appendStringInfoCharMacro(out, '"');
	for (const char *at = string; at < end; at++)
	{
		char		escape;

		while (end - at >= (ptrdiff_t) sizeof(uint64) && !any_escape(at))
			at += sizeof(uint64);
		if (at == end)
			break;
		escape = escapes[(unsigned char) *at];
		if (escape == PLAIN)
			continue;
		appendBinaryStringInfo(out, run, at - run);
		if (escape == HEX)
			appendStringInfo(out, "\\u%04x", (unsigned char) *at);
		else
		{
			appendStringInfoCharMacro(out, '\\');
			appendStringInfoCharMacro(out, escape);
		}
		run = at + 1;
	}
	appendBinaryStringInfo(out, run, end - run);
	appendStringInfoCharMacro(out, '"');
}

static void
append_scalar(StringInfo out, const JsonbValue *value)
{
	char	   *number;

	switch (value->type)
	{
		case jbvNull:
			appendBinaryStringInfo(out, "null", 4);
			break;
		case jbvString:
			append_string(out, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			number = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(value->val.numeric)));
			appendBinaryStringInfo(out, number, strlen(number));
			pfree(number);
			break;
		case jbvBool:
			if (value->val.boolean)
				appendBinaryStringInfo(out, "true", 4);
			else
				appendBinaryStringInfo(out, "false", 5);
			break;
		default:
			elog(ERROR, "unexpected type %d of a jsonb scalar", (int) value->type);
	}
}

void
eo_json_text(StringInfo out, Jsonb *value)
{
	JsonbIterator *it = JsonbIteratorInit(&value->root);
	JsonbIteratorToken token;
	JsonbValue	item;
	bool		scalar = false; /* the root is an array that stands for its element */
	bool		first = true;	/* in the innermost container */

	while ((token = JsonbIteratorNext(&it, &item, false)) != WJB_DONE)
	{
		if (!first && (token == WJB_KEY || token == WJB_ELEM ||
					   token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT))
			appendBinaryStringInfo(out, ", ", 2);
		first = false;
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				scalar = item.val.array.rawScalar;
				if (!scalar)
					appendStringInfoCharMacro(out, '[');
				first = true;
				break;
			case WJB_BEGIN_OBJECT:
				appendStringInfoCharMacro(out, '{');
				first = true;
				break;
			case WJB_KEY:
				append_scalar(out, &item);
				appendBinaryStringInfo(out, ": ", 2);
				/* the value follows its key without a comma */
				first = true;
				break;
			case WJB_ELEM:
			case WJB_VALUE:
				append_scalar(out, &item);
				break;
			case WJB_END_ARRAY:
				if (!scalar)
					appendStringInfoCharMacro(out, ']');
				break;
			case WJB_END_OBJECT:
				appendStringInfoCharMacro(out, '}');
				break;
			default:
				elog(ERROR, "unexpected token %d of a jsonb value", (int) token);
		}
	}
}
