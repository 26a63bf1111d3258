/*
 * events.c
 *
 * The one place where the relay waits.
 *
 * The set of what it waits for is made anew when a publisher came or went,
 * since PostgreSQL's wait event sets only grow.
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "relay/events.h"
#include "relay/subscription.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

/* Events taken at once; the others come with the next call. */
#define EVENTS_AT_ONCE	64

/* Of the two descriptors of a publisher, the one that the event is for. */
typedef struct Source
{
	EoSubscription *sub;
	bool		errors;
} Source;

static WaitEventSet *set = NULL;
static Source *sources = NULL;

static void
make_set(void)
{
	int			n = 0;
	int			i = 0;

	if (set != NULL)
		FreeWaitEventSet(set);
	set = NULL;
	if (sources != NULL)
		pfree(sources);
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
		n += 2;
	sources = MemoryContextAllocZero(eo_relay.context, sizeof(Source) * Max(n, 1));
	set = EoCreateWaitEventSet(n + 2);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		sub->socket_event = -1;
		sub->waits_writeable = false;
		if (sub->process.channel.sock != PGINVALID_SOCKET)
		{
			sources[i].sub = sub;
			sub->socket_event = AddWaitEventToSet(set, WL_SOCKET_READABLE,
												  sub->process.channel.sock, NULL, &sources[i++]);
		}
		if (sub->process.errors != PGINVALID_SOCKET)
		{
			sources[i].sub = sub;
			sources[i].errors = true;
			AddWaitEventToSet(set, WL_SOCKET_READABLE, sub->process.errors, NULL, &sources[i++]);
		}
	}
	eo_relay.fds_changed = false;
}

/* Waits for room in a socket only while there is something to send. */
static void
set_writeable(EoSubscription *sub)
{
	bool		writeable = eo_channel_pending(&sub->process.channel) > 0;

	if (sub->socket_event < 0 || writeable == sub->waits_writeable)
		return;
	ModifyWaitEvent(set, sub->socket_event,
					writeable ? WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE,
					NULL);
	sub->waits_writeable = writeable;
}

void
eo_events_wait(long timeout)
{
	WaitEvent	events[EVENTS_AT_ONCE];
	int			n;

	if (set == NULL || eo_relay.fds_changed)
		make_set();
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
		set_writeable(sub);

	n = WaitEventSetWait(set, timeout, events, EVENTS_AT_ONCE, PG_WAIT_EXTENSION);
	for (int i = 0; i < n; i++)
	{
		Source	   *source = events[i].user_data;

		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (source != NULL && source->errors)
			source->sub->errors_readable = true;
		else if (source != NULL && (events[i].events & WL_SOCKET_READABLE))
			source->sub->socket_readable = true;
	}
}
