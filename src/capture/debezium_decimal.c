/*
 * debezium_decimal.c
 *
 * Decimals as Kafka Connect stores them: the digits without the point as an
 * integer, in two's complement, the highest byte first, no byte more than it
 * takes; in JSON these bytes are base64.
 */
#include "postgres.h"

#include "capture/debezium_value.h"
#include "common/base64.h"

/* What an int64 always holds */
#define SMALL_DIGITS	18

/* Digits of a limb's worth of text */
#define STEP_DIGITS		9

void
eo_debezium_base64(JsonbValue *out, const void *bytes, int len)
{
	int			room = pg_b64_enc_len(len);
	char	   *text = palloc(room + 1);
	int			used = pg_b64_encode(bytes, len, text, room);

	if (used < 0)
		elog(ERROR, "could not encode %d bytes", len);
	eo_debezium_string(out, text, used);
}

/* `len` bytes of a number, the highest first; drops those that only tell the sign. */
static void
put_trimmed(JsonbValue *out, const unsigned char *bytes, int len)
{
	while (len > 1 &&
		   ((bytes[0] == 0x00 && (bytes[1] & 0x80) == 0) ||
			(bytes[0] == 0xff && (bytes[1] & 0x80) != 0)))
	{
		bytes++;
		len--;
	}
	eo_debezium_base64(out, bytes, len);
}

static void
put_small(JsonbValue *out, uint64 number)
{
	unsigned char bytes[sizeof(number)];

	for (int i = 0; i < sizeof(number); i++)
		bytes[i] = (unsigned char) (number >> (8 * (sizeof(number) - 1 - i)));
	put_trimmed(out, bytes, sizeof(number));
}

/* limbs = limbs * factor + term, the lowest limb first; returns how many there are */
static int
multiply_add(uint32 *limbs, int nlimbs, uint32 factor, uint32 term)
{
	uint64		carry = term;

	for (int i = 0; i < nlimbs; i++)
	{
		carry += (uint64) limbs[i] * factor;
		limbs[i] = (uint32) carry;
		carry >>= 32;
	}
	if (carry != 0)
		limbs[nlimbs++] = (uint32) carry;
	return nlimbs;
}

static void
put_large(JsonbValue *out, bool negative, const char *digits, int ndigits)
{
	uint32	   *limbs = palloc(sizeof(uint32) * (ndigits / STEP_DIGITS + 2));
	unsigned char *bytes;
	int			nlimbs = 0;
	int			len;
	int			carry = 1;

	for (int i = 0; i < ndigits;)
	{
		uint32		factor = 1;
		uint32		term = 0;

		for (int step = 0; step < STEP_DIGITS && i < ndigits; step++, i++)
		{
			factor *= 10;
			term = term * 10 + (digits[i] - '0');
		}
		nlimbs = multiply_add(limbs, nlimbs, factor, term);
	}
	/* one byte more than it takes, for the sign */
	len = nlimbs * sizeof(uint32) + 1;
	bytes = palloc0(len);
	for (int i = 0; i < len - 1; i++)
		bytes[len - 1 - i] = (unsigned char) (limbs[i / 4] >> (8 * (i % 4)));
	for (int i = len - 1; negative && i >= 0; i--)
	{
		carry += (unsigned char) ~bytes[i];
		bytes[i] = (unsigned char) carry;
		carry >>= 8;
	}
	put_trimmed(out, bytes, len);
}

/* `digits` may have a sign and a point. */
void
eo_debezium_decimal(JsonbValue *out, const char *digits)
{
	bool		negative = digits[0] == '-';
	char	   *plain = palloc(strlen(digits) + 1);
	int			ndigits = 0;
	int64		number = 0;

	for (const char *at = digits; *at != '\0'; at++)
	{
		if (*at >= '0' && *at <= '9' && !(ndigits == 0 && *at == '0'))
			plain[ndigits++] = *at;
	}
	if (ndigits > SMALL_DIGITS)
	{
		put_large(out, negative, plain, ndigits);
		return;
	}
	for (int i = 0; i < ndigits; i++)
		number = number * 10 + (plain[i] - '0');
	put_small(out, (uint64) (negative ? -number : number));
}
