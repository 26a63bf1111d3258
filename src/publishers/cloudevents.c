/*
 * cloudevents.c
 *
 * Events as CloudEvents 1.0.
 *
 * Attributes of our own: `sequence` (as a string, since it needs 64 bits),
 * `partitionkey`, `topic`, `position`, and `redelivered` on a dead letter that
 * was sent again.  Headers of the event become further attributes under their
 * own names; one that carries the name of another attribute is left out, since
 * a JSON object with a name twice means something else to every parser.
 */
#include "publishers/cloudevents.h"

#include <stdio.h>
#include <string.h>

#define REPLACEMENT	"\xEF\xBF\xBD"	/* U+FFFD */

static const char hex_digits[] = "0123456789abcdef";

/*----------
 * Attributes
 *----------
 */

void
cloudevents_id(const char *event_id, char out[37])
{
	char	   *p = out;

	for (int i = 0; i < EO_EVENT_ID_SIZE; i++)
	{
		unsigned char byte = (unsigned char) event_id[i];

		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex_digits[byte >> 4];
		*p++ = hex_digits[byte & 15];
	}
	*p = '\0';
}

static char *
put_digits(char *p, int64_t value, int width)
{
	for (int i = width - 1; i >= 0; i--)
	{
		p[i] = (char) ('0' + value % 10);
		value /= 10;
	}
	return p + width;
}

/*
 * Days are turned into a date of the Gregorian calendar by counting from the
 * first of March of year 0, in eras of 400 years, so that the leap day is the
 * last day of a year.
 */
void
cloudevents_time(int64_t time, char out[36])
{
	const int64_t day_us = INT64_C(86400) * 1000000;
	const int64_t first = INT64_C(-62167219200) * 1000000;	/* 0000-01-01 */
	const int64_t last = INT64_C(253402300800) * 1000000 - 1;	/* 9999-12-31 */
	int64_t		us = time < first ? first : time > last ? last : time;
	int64_t		days = us / day_us - (us % day_us < 0 ? 1 : 0);
	int64_t		in_day = us - days * day_us;
	int64_t		z = days + 719468;	/* since 0000-03-01 */
	int64_t		era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t		doe = z - era * 146097;
	int64_t		yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t		doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t		mp = (5 * doy + 2) / 153;
	int64_t		month = mp < 10 ? mp + 3 : mp - 9;
	int64_t		year = yoe + era * 400 + (month <= 2 ? 1 : 0);
	char	   *p = out;

	p = put_digits(p, year, 4);
	*p++ = '-';
	p = put_digits(p, month, 2);
	*p++ = '-';
	p = put_digits(p, doy - (153 * mp + 2) / 5 + 1, 2);
	*p++ = 'T';
	p = put_digits(p, in_day / INT64_C(3600000000), 2);
	*p++ = ':';
	p = put_digits(p, in_day / 60000000 % 60, 2);
	*p++ = ':';
	p = put_digits(p, in_day / 1000000 % 60, 2);
	*p++ = '.';
	p = put_digits(p, in_day % 1000000, 6);
	*p++ = 'Z';
	*p = '\0';
}

/*
 * The length of the UTF-8 sequence at the front, which starts with a byte
 * above 0x7F; 0 if it is not one.
 */
static size_t
utf8_sequence(const unsigned char *p, size_t left)
{
	unsigned	low = 0x80;
	unsigned	high = 0xBF;
	size_t		len;

	if (p[0] >= 0xC2 && p[0] <= 0xDF)
		len = 2;
	else if (p[0] >= 0xE0 && p[0] <= 0xEF)
		len = 3;
	else if (p[0] >= 0xF0 && p[0] <= 0xF4)
		len = 4;
	else
		return 0;

	/* No overlong forms, no surrogates, nothing above U+10FFFF */
	if (p[0] == 0xE0)
		low = 0xA0;
	else if (p[0] == 0xED)
		high = 0x9F;
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F;

	if (left < len || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	}
	return len;
}

bool
cloudevents_is_utf8(EoBytes text)
{
	const unsigned char *p = (const unsigned char *) text.data;

	for (size_t i = 0; i < text.len;)
	{
		size_t		n = p[i] < 0x80 ? 1 : utf8_sequence(p + i, text.len - i);

		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

/*----------
 * JSON
 *----------
 */

/* A place for `len` bytes, far fewer than the buffer holds. */
static inline char *
room(JsonSink *sink, size_t len)
{
	if (sink->cap - sink->len < len)
		sink->drain(sink);
	return sink->data + sink->len;
}

void
json_put_raw(JsonSink *sink, const char *data, size_t len)
{
	while (len > sink->cap - sink->len)
	{
		size_t		n = sink->cap - sink->len;

		memcpy(sink->data + sink->len, data, n);
		sink->len += n;
		data += n;
		len -= n;
		sink->drain(sink);
	}
	if (len > 0)
		memcpy(sink->data + sink->len, data, len);
	sink->len += len;
}

#define put_literal(sink, literal) \
	json_put_raw(sink, literal, sizeof(literal) - 1)

static inline bool
is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

/* One ASCII character that cannot stand in a JSON string as it is */
static void
put_escape(JsonSink *sink, unsigned char c)
{
	char		out[6] = {'\\', 'u', '0', '0', hex_digits[c >> 4], hex_digits[c & 15]};
	const char *shorts = "\"\"\\\\\bb\ff\nn\rr\tt";

	for (const char *s = shorts; *s; s += 2)
	{
		if ((unsigned char) *s == c)
		{
			out[1] = s[1];
			json_put_raw(sink, out, 2);
			return;
		}
	}
	json_put_raw(sink, out, 6);
}

void
json_put_escaped(JsonSink *sink, EoBytes text)
{
	const unsigned char *p = (const unsigned char *) text.data;
	size_t		i = 0;

	while (i < text.len)
	{
		size_t		from = i;
		size_t		n;

		/* What can be copied as it is, in one go */
		while (i < text.len)
		{
			n = is_plain(p[i]) ? 1 : p[i] < 0x80 ? 0 : utf8_sequence(p + i, text.len - i);
			if (n == 0)
				break;
			i += n;
		}
		json_put_raw(sink, text.data + from, i - from);
		if (i < text.len)
		{
			if (p[i] < 0x80)
				put_escape(sink, p[i]);
			else
				put_literal(sink, REPLACEMENT);
			i++;
		}
	}
}

static void
put_string(JsonSink *sink, EoBytes text)
{
	put_literal(sink, "\"");
	json_put_escaped(sink, text);
	put_literal(sink, "\"");
}

static void
put_number(JsonSink *sink, int64_t number)
{
	char	   *p = room(sink, 24);
	char		digits[24];
	size_t		n = 0;

	for (uint64_t left = (uint64_t) number; n == 0 || left > 0; left /= 10)
		digits[n++] = (char) ('0' + left % 10);
	sink->len += n;
	while (n > 0)
		*p++ = digits[--n];
}

/* JSON text as it is, but on one line: in JSON a line break is a blank. */
static void
put_json_text(JsonSink *sink, EoBytes json)
{
	const char *p = json.data;
	const char *end = json.data + json.len;
	bool		has_cr = memchr(p, '\r', json.len) != NULL;

	while (p < end)
	{
		const char *stop = memchr(p, '\n', (size_t) (end - p));
		const char *cr = has_cr ? memchr(p, '\r', (size_t) (end - p)) : NULL;

		if (stop == NULL || (cr != NULL && cr < stop))
			stop = cr != NULL ? cr : end;
		json_put_raw(sink, p, (size_t) (stop - p));
		if (stop == end)
			return;
		put_literal(sink, " ");
		p = stop + 1;
	}
}

static void
put_base64(JsonSink *sink, EoBytes bytes)
{
	static const char digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *) bytes.data;

	for (size_t i = 0; i < bytes.len; i += 3)
	{
		size_t		left = bytes.len - i;
		unsigned	v = (unsigned) p[i] << 16;
		char	   *out = room(sink, 4);

		if (left > 1)
			v |= (unsigned) p[i + 1] << 8;
		if (left > 2)
			v |= p[i + 2];
		out[0] = digits[v >> 18];
		out[1] = digits[(v >> 12) & 63];
		out[2] = left > 1 ? digits[(v >> 6) & 63] : '=';
		out[3] = left > 2 ? digits[v & 63] : '=';
		sink->len += 4;
	}
}

static bool
is_text_type(EoBytes content_type)
{
	return content_type.len >= 5 && memcmp(content_type.data, "text/", 5) == 0;
}

static void
put_data(JsonSink *sink, const EoEventMessage *event)
{
	if (event->payload.data == NULL)
	{
		put_literal(sink, ",\"data\":null");
		return;
	}
	put_literal(sink, ",\"datacontenttype\":");
	put_string(sink, event->content_type);

	if ((event->flags & EO_EVENT_JSON) && event->payload.len > 0)
	{
		put_literal(sink, ",\"data\":");
		put_json_text(sink, event->payload);
	}
	else if (is_text_type(event->content_type) && cloudevents_is_utf8(event->payload))
	{
		put_literal(sink, ",\"data\":");
		put_string(sink, event->payload);
	}
	else
	{
		put_literal(sink, ",\"data_base64\":\"");
		put_base64(sink, event->payload);
		put_literal(sink, "\"");
	}
}

/* Whether an attribute of the envelope has this name. */
static bool
is_reserved(EoBytes name)
{
	static const char *const reserved[] = {
		"specversion", "id", "source", "sequence", "redelivered", "type",
		"time", "partitionkey", "topic", "position", "datacontenttype", "data",
		"data_base64"
	};

	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
	{
		if (strlen(reserved[i]) == name.len &&
			memcmp(reserved[i], name.data, name.len) == 0)
			return true;
	}
	return false;
}

static void
put_headers(JsonSink *sink, const EoPairs *headers)
{
	size_t		offset = 0;
	EoPair		pair;

	while (eo_pairs_next(headers, &offset, &pair))
	{
		if (pair.name.len == 0 || is_reserved(pair.name))
			continue;
		put_literal(sink, ",");
		put_string(sink, pair.name);
		put_literal(sink, ":");
		put_string(sink, pair.value);
	}
}

void
cloudevents_put_json(JsonSink *sink, const EoEventMessage *event,
					 EoBytes escaped_source)
{
	put_literal(sink, CLOUDEVENTS_JSON_START);
	cloudevents_id(event->event_id, room(sink, 37));
	sink->len += 36;
	put_literal(sink, CLOUDEVENTS_JSON_SOURCE);
	json_put_raw(sink, escaped_source.data, escaped_source.len);
	put_literal(sink, CLOUDEVENTS_JSON_SEQUENCE);
	put_number(sink, event->seq);
	put_literal(sink, "\"");
	if (event->flags & EO_EVENT_RETRY)
		put_literal(sink, CLOUDEVENTS_JSON_REDELIVERED);

	put_literal(sink, ",\"type\":");
	put_string(sink, event->type.data ? event->type : event->topic);
	put_literal(sink, ",\"time\":\"");
	cloudevents_time(event->time, room(sink, 36));
	sink->len += 27;
	put_literal(sink, "\"");
	if (event->key.data)
	{
		put_literal(sink, ",\"partitionkey\":");
		put_string(sink, event->key);
	}
	put_literal(sink, ",\"topic\":");
	put_string(sink, event->topic);
	put_literal(sink, ",\"position\":");
	put_number(sink, event->position);
	put_headers(sink, &event->headers);
	put_data(sink, event);
	put_literal(sink, "}");
}
