/*
 * sanitizer_options.c
 *
 * What the sanitizers of a publisher do, said in the executable: the relay
 * gives its publishers no environment.
 *
 * Reports go to files, those of undefined behaviour by asan_reports.c: a publisher
 * that dies of one is started again, and a test may not notice.  A library that a
 * test puts before libasan is in order, and a publisher that is told to die of a
 * signal does.
 */
#define EO_OPTIONS	"log_path=" EO_REPORTS "/report:verify_asan_link_order=0:" \
	"detect_stack_use_after_return=1:strict_string_checks=1:print_stacktrace=1:" \
	"handle_segv=0:handle_abort=0"

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);

const char *
__asan_default_options(void)
{
	return EO_OPTIONS;
}

const char *
__ubsan_default_options(void)
{
	return EO_OPTIONS;
}

const char *
__tsan_default_options(void)
{
	return "log_path=" EO_REPORTS "/report:halt_on_error=0:exitcode=66";
}

/*
 * librdkafka is not built with a sanitizer: ThreadSanitizer does not see the
 * atomic operations that order what its own threads do, only our side of them.
 */
const char *
__tsan_default_suppressions(void)
{
	return "called_from_lib:librdkafka.so\n";
}
