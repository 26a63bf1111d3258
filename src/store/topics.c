/*
 * topics.c
 *
 * Topic patterns of subscriptions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "store/topics.h"
#include "utils/builtins.h"

/*
 * On a mismatch goes back to the latest '*' and lets it take one character
 * more, which needs no recursion.
 */
bool
eo_topic_matches(const char *pattern, const char *topic, int len)
{
	const char *end = topic + len;
	const char *star = NULL;
	const char *retry = NULL;

	while (topic < end)
	{
		if (*pattern == '*')
		{
			star = pattern++;
			retry = topic;
		}
		else if (*pattern != '\0' && *pattern == *topic)
		{
			pattern++;
			topic++;
		}
		else if (star != NULL)
		{
			pattern = star + 1;
			topic = ++retry;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

bool
eo_topic_filter(const char *topic, int len, void *arg)
{
	ListCell   *cell;

	foreach(cell, (List *) arg)
	{
		if (eo_topic_matches(lfirst(cell), topic, len))
			return true;
	}
	return false;
}

List *
eo_topic_patterns(ArrayType *array)
{
	List	   *patterns = NIL;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			patterns = lappend(patterns, TextDatumGetCString(values[i]));
	}
	return patterns;
}
