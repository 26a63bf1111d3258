/*
 * asan_reports.c
 *
 * Part of the publishers that have the address and undefined behaviour
 * sanitizers: writes what the latter finds to a file beside those of the former.
 *
 * The two are libraries of their own, and the second finds its log_path taken by
 * the first: its reports go to stderr, which a test may throw away, as it may
 * start another publisher in the place of one that died of such a report.
 */
#include <stdio.h>
#include <unistd.h>

void		__ubsan_on_report(void);
void		__ubsan_get_current_report_data(const char **kind, const char **message,
											const char **file, unsigned *line,
											unsigned *column, char **address);
void		__sanitizer_print_stack_trace(void);

/* Called by the sanitizer amid each report. */
void
__ubsan_on_report(void)
{
	const char *kind;
	const char *message;
	const char *file;
	unsigned	line;
	unsigned	column;
	char	   *address;
	char		path[sizeof(EO_REPORTS) + 40];
	FILE	   *report;

	__ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
	snprintf(path, sizeof(path), EO_REPORTS "/undefined.%d", (int) getpid());
	report = fopen(path, "a");
	if (report != NULL)
	{
		fprintf(report, "%s:%u:%u: runtime error: %s: %s\n", file, line, column, kind, message);
		fclose(report);
	}
	/* It is the other's, and so goes to its file. */
	__sanitizer_print_stack_trace();
}
