/*
 * How old a copy may be: two nodes own a partition in turn, and a third one
 * keeps copies of its one key. Policy "available".
 *
 * Checked: no read returns a value that an acknowledged write, begun after that
 * value was acknowledged, overwrote B ticks ago or longer; and no copy is older
 * than what its own node has written (F1).
 *
 * At most one node owns at a time: ownership.pml shows that. A node that begins
 * has the other's answer, or the other owns nothing, has crashed, or has not run
 * for B.
 * Time goes in ticks; whatever happens between two ticks happens in any order.
 * Polls, events, calls and answers arrive at any later time or never. The third
 * node may be slow or paused at any time: nothing makes it act.
 *
 * -DWITHOUT_ and the name of a rule takes the rule out. README.md has the table.
 */

#ifndef B
#define B 2             /* the bound, in ticks */
#endif
#ifndef WRITES
#define WRITES 3        /* values, and deletions, that are ever written */
#endif
#ifndef OTHERS
#define OTHERS 1        /* writes of other keys */
#endif
#ifndef CRASHES
#define CRASHES 1       /* each with a restart at any later time, or none */
#endif
#ifndef PAUSES
#define PAUSES 1
#endif
#ifndef CUTS
#define CUTS 1          /* how often a log forgets its events */
#endif
#ifndef TAKES
#define TAKES 2         /* how often an ownership begins, beside the first */
#endif
#ifndef OWN
#define OWN 0           /* whether some writes come through the third node */
#endif
#ifndef DELETES
#define DELETES 0       /* whether some writes are deletions */
#endif
#define LOG 4           /* events of a process */

#define OTHER(x) (1 - (x))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* The nodes that own in turn: 0 and 1. */
bit up[2], susp[2];
bit unseen[2];          /* a pause that it has not found yet */
byte gap[2];            /* ticks that it has not run for */
byte epoch[2];
byte clock[2];          /* the highest version it has stamped or heard of */
bit owned[2];
byte value[2];          /* what it has of the key; 0 is nothing */
byte noted[2];          /* its own ledger: the version of its last write */
byte event[2 * LOG];    /* its log: versions; 0 is another key's */
byte head[2], tail[2];
byte offer[2];          /* the value that is handed over to it, on its way */
byte offerAt[2];        /* the version of that release */

byte written;           /* values, and deletions, so far */
byte unappended;        /* 1 and the node whose event is not yet in its log; only without append */

/* What a checker knows. */
byte overwritten[WRITES + 1];   /* 1 and the ticks since; 0 is not */
byte own;               /* the last write through the third node */

/* The third node. */
byte ledger;            /* the key's version, or its slot's or partition's floor */
byte cursorEpoch[2], applied[2];
byte lease[2];          /* ticks since the poll was sent that gave it; B is none */
byte polling[2];        /* a poll: 1 is sent, 2 is answered */
byte polled[2];         /* ticks since it was sent */
byte pollEpoch[2], pollHead[2];
byte copy, copyOf, copyEpoch, copyAsOf;
byte calling, callAsOf, callValue, callEpoch; /* 1 and the node that it calls, which has stamped or read */

byte crashes = CRASHES, pauses = PAUSES, cuts = CUTS, takes = TAKES, others = OTHERS;

#define RUNS(x) (up[x] && !susp[x])
#define AWAKE(x) (RUNS(x) && !unseen[x])
#ifdef WITHOUT_pause_read
#define ANSWERS(x) (RUNS(x) && owned[x])
#else
#define ANSWERS(x) (AWAKE(x) && owned[x])
#endif

inline fresh(v) { assert(overwritten[v] <= B) }

inline append(x, v) { event[x * LOG + head[x]] = v; head[x]++ }

/* When a copy may be served. */
#ifdef WITHOUT_lease
#define LEASED 1
#else
#define LEASED (lease[copyOf] < B)
#endif
#ifdef WITHOUT_epoch_copy
#define PRESENT 1
#else
#define PRESENT (copyEpoch == cursorEpoch[copyOf])
#endif
#ifdef WITHOUT_admit
#define USABLE(asOf) 1
#else
#define USABLE(asOf) ((asOf) >= ledger)
#endif
#define ADMITTED USABLE(copyAsOf)

inline dropPoll(x) { polling[x] = 0; polled[x] = 0; pollEpoch[x] = 0; pollHead[x] = 0 }
inline dropCall() { calling = 0; callAsOf = 0; callValue = 0; callEpoch = 0 }

/*
 * What can be of no use any more is the same as nothing: a copy that can be
 * served no more, a call that would become one, and the lease on a node that
 * does not own and of which there is no copy.
 */
#ifdef WITHOUT_floor
#define FOREVER(admitted) 1
#else
#define FOREVER(admitted) (admitted)
#endif
#define MATTERS(x) (owned[x] || copy && copyOf == x)
inline forget() {
	if
	:: copy && (!FOREVER(ADMITTED) || !PRESENT) -> copy = 0; copyOf = 0; copyEpoch = 0; copyAsOf = 0
	:: else
	fi;
#ifndef WITHOUT_stamp
	if :: calling && (!FOREVER(USABLE(callAsOf)) || !owned[calling - 1]) -> dropCall() :: else fi;
#endif
	if :: !MATTERS(0) -> lease[0] = B; dropPoll(0) :: else fi;
	if :: !MATTERS(1) -> lease[1] = B; dropPoll(1) :: else fi
}

/*
 * A write is acknowledged at once: later would only make what it overwrote
 * younger. Deleting writes nothing. One through the third node is noted there
 * before it is acknowledged.
 */
#define ROOM(x) (head[x] < LOG)
#ifdef WITHOUT_pause_write
#define WRITES_TO(x) RUNS(x)
#else
#define WRITES_TO(x) AWAKE(x)
#endif
#define CANWRITE(x) (WRITES_TO(x) && owned[x] && ROOM(x) && !unappended && written < WRITES)
inline write(x, v, through) {
	if :: written -> overwritten[written] = 1 :: else fi;
	written++;
	clock[x]++;
	value[x] = v; noted[x] = clock[x];
#ifdef WITHOUT_append
	unappended = 1 + x;
#else
	append(x, clock[x]);
#endif
	if
	:: through ->
		own = written;
#ifndef WITHOUT_own_write
		ledger = MAX(ledger, clock[x]);
		forget()
#endif
		skip
	:: else
	fi
}

/* The end of an ownership. */
inline release(x) {
	clock[x]++;
#ifndef WITHOUT_released
	append(x, clock[x]);
#endif
	owned[x] = 0; offer[x] = 0; offerAt[x] = 0; noted[x] = 0;
#ifndef WITHOUT_empty
	value[x] = 0;
#endif
	forget()
}

/* x takes: the other has answered, or need not. A handoff comes later or never. */
#define CANTAKE(x) (AWAKE(x) && !owned[x] && takes && AWAKE(OTHER(x)) && owned[OTHER(x)] && ROOM(OTHER(x)))
#define CANBEGIN(x) (AWAKE(x) && !owned[x] && takes && \
	(!owned[OTHER(x)] || unseen[OTHER(x)] || gap[OTHER(x)] >= B))
inline begin(x) {
	takes--;
	if
	:: AWAKE(OTHER(x)) && owned[OTHER(x)] ->
		offer[x] = value[OTHER(x)];
		release(OTHER(x));
		if :: offer[x] -> offerAt[x] = clock[OTHER(x)] :: else fi
	:: else
	fi;
	clock[x] = MAX(clock[x], clock[OTHER(x)]);
	owned[x] = 1; noted[x] = 0
}
#ifdef WITHOUT_handoff
#define ADMITS(x) 1
#else
#define ADMITS(x) (offerAt[x] >= noted[x])
#endif
#define CANPULL(x) (AWAKE(x) && owned[x] && offer[x])
inline pull(x) {
	if :: ADMITS(x) -> value[x] = offer[x] :: else fi;
	offer[x] = 0; offerAt[x] = 0
}

/* The third node polls x. The lease counts from the sending. */
#define CANPOLL(x) (!polling[x] && MATTERS(x))
inline poll(x) { polling[x] = 1; polled[x] = 0 }
#ifdef WITHOUT_pause_poll
#define CANTELL(x) (RUNS(x) && polling[x] == 1)
#else
#define CANTELL(x) (AWAKE(x) && polling[x] == 1)
#endif
#ifdef WITHOUT_applied
#define APPLIED(x) 1
#else
#define APPLIED(x) (applied[x] >= pollHead[x])
#endif
inline renew(x) {
	if
	:: polling[x] == 2 && pollEpoch[x] == cursorEpoch[x] && APPLIED(x) ->
#ifdef WITHOUT_sent
		lease[x] = 0;
#else
		if :: polled[x] < lease[x] -> lease[x] = polled[x] :: else fi;
#endif
		dropPoll(x)
	:: else
	fi
}
inline tell(x) { polling[x] = 2; pollEpoch[x] = epoch[x]; pollHead[x] = head[x]; renew(x) }

/* It follows the log of x. */
#ifdef WITHOUT_contiguous
#define NEXT(x) (head[x] - 1)
#else
#define NEXT(x) applied[x]
#endif
#define CANAPPLY(x) (cursorEpoch[x] == epoch[x] && applied[x] >= tail[x] && applied[x] < head[x])
inline apply(x) {
	ledger = MAX(ledger, event[x * LOG + NEXT(x)]);
	applied[x] = NEXT(x) + 1;
	renew(x); forget()
}
#define CANRESET(x) (AWAKE(x) && (cursorEpoch[x] != epoch[x] || applied[x] < tail[x]))
inline reset(x) {
#ifndef WITHOUT_reset
	ledger = MAX(ledger, clock[x]);
#endif
#ifndef WITHOUT_epoch_lease
	if :: cursorEpoch[x] != epoch[x] -> lease[x] = B; dropPoll(x) :: else fi;
#endif
	cursorEpoch[x] = epoch[x]; applied[x] = head[x];
	renew(x); forget()
}

/*
 * It calls x for the value: x stamps, then reads; the answer becomes a copy, or
 * is lost. That it comes later adds nothing: a copy is judged when it is served.
 */
#ifdef WITHOUT_stamp
#define FIRST(x) callValue = value[x]
#define SECOND(x) callAsOf = clock[x]
#else
#define FIRST(x) callAsOf = clock[x]
#define SECOND(x) callValue = value[x]
#endif
#define CANSTAMP(x) (!calling && ANSWERS(x))
inline stamp(x) { calling = 1 + x; callEpoch = epoch[x]; FIRST(x) }
#define CANREAD(x) (calling == 1 + x && ANSWERS(x) && callEpoch == epoch[x])
inline read(x) {
	SECOND(x);
	fresh(callValue);
	if
	:: callValue -> copy = callValue; copyOf = x; copyEpoch = callEpoch; copyAsOf = callAsOf
	:: else
	fi;
	dropCall();
	forget()
}

/* A copy is served. */
#define CANHIT (copy && LEASED && PRESENT && ADMITTED)
inline hit() { fresh(copy); assert(copy >= own) }

/* Faults. What a crashed process sent may still arrive. */
inline crash(x) {
	crashes--;
	up[x] = 0; susp[x] = 0; unseen[x] = 0; gap[x] = 0;
	owned[x] = 0; value[x] = 0; noted[x] = 0; offer[x] = 0; offerAt[x] = 0;
	forget()
}
inline restart(x) {
	up[x] = 1; epoch[x]++;
	head[x] = 0; tail[x] = 0;
	event[x * LOG] = 0; event[x * LOG + 1] = 0; event[x * LOG + 2] = 0; event[x * LOG + 3] = 0
}
inline suspend(x) { pauses--; susp[x] = 1 }
inline resume(x) { susp[x] = 0; unseen[x] = (gap[x] >= B); gap[x] = 0 }
/* A node that finds a pause ends its ownership before anything else. */
inline find(x) {
	unseen[x] = 0;
	if :: owned[x] -> release(x) :: else fi
}
inline truncate(x) { cuts--; tail[x] = head[x] }

inline grow(v, to) { if :: v < to -> v++ :: else fi }
inline tickAt(x) {
	grow(lease[x], B);
	if :: polling[x] -> polled[x]++; if :: polled[x] >= B -> dropPoll(x) :: else fi :: else fi;
	if :: susp[x] -> grow(gap[x], B) :: else fi
}
inline tick() {
	tickAt(0); tickAt(1);
	if :: overwritten[1] -> grow(overwritten[1], B + 1) :: else fi;
	if :: overwritten[2] -> grow(overwritten[2], B + 1) :: else fi
}

/* printf shows only where a counterexample is replayed. */
#define NODE(x) \
	:: d_step { CANWRITE(x) -> printf("%d writes value %d\n", x, written + 1); write(x, written, 0) } \
	:: d_step { OWN && CANWRITE(x) -> printf("%d writes value %d for the third node\n", x, written + 1); write(x, written, 1) } \
	:: d_step { DELETES && CANWRITE(x) -> printf("%d deletes\n", x); write(x, 0, 0) } \
	:: d_step { AWAKE(x) && owned[x] && ROOM(x) && others -> printf("%d writes another key\n", x); others--; append(x, 0) } \
	:: d_step { CANTAKE(x) -> printf("%d OWNS, as %d has answered\n", x, OTHER(x)); begin(x) } \
	:: d_step { CANBEGIN(x) -> printf("%d OWNS\n", x); begin(x) } \
	:: d_step { CANPULL(x) -> printf("%d has the handoff\n", x); pull(x) } \
	:: d_step { ANSWERS(x) -> printf("%d reads its value\n", x); fresh(value[x]) } \
	:: d_step { CANPOLL(x) -> printf("poll of %d\n", x); poll(x) } \
	:: d_step { CANTELL(x) -> printf("%d answers the poll\n", x); tell(x) } \
	:: d_step { polling[x] && polled[x] -> printf("the poll of %d is lost\n", x); dropPoll(x) } \
	:: d_step { CANAPPLY(x) -> printf("event of %d\n", x); apply(x) } \
	:: d_step { CANRESET(x) -> printf("RESET of %d\n", x); reset(x) } \
	:: d_step { CANSTAMP(x) -> printf("%d is called\n", x); stamp(x) } \
	:: d_step { CANREAD(x) -> printf("%d answers the call\n", x); read(x) } \
	:: d_step { up[x] && crashes -> printf("%d CRASHES\n", x); crash(x) } \
	:: d_step { !up[x] -> printf("%d starts again\n", x); restart(x) } \
	:: d_step { RUNS(x) && pauses -> printf("%d is suspended\n", x); suspend(x) } \
	:: d_step { susp[x] && 1 -> printf("%d runs again\n", x); resume(x) } \
	:: d_step { RUNS(x) && unseen[x] && ROOM(x) -> printf("%d finds its pause\n", x); find(x) } \
	:: d_step { up[x] && cuts && tail[x] < head[x] -> printf("%d forgets events\n", x); truncate(x) }

init {
	d_step {
		up[0] = 1; up[1] = 1;
		epoch[0] = 1; epoch[1] = 1;
		cursorEpoch[0] = 1; cursorEpoch[1] = 1;
		lease[0] = B; lease[1] = B;
		owned[0] = 1
	}
	do
	NODE(0) NODE(1)
	:: d_step { calling > 0 -> printf("the call is lost\n"); dropCall() }
	:: d_step { CANHIT -> printf("the copy is served\n"); hit() }
#ifdef WITHOUT_floor
	:: d_step { ledger > 0 -> printf("another key takes the slot\n"); ledger = 0 }
#endif
#ifdef WITHOUT_append
	:: d_step { unappended == 1 && ROOM(0) && RUNS(0) -> printf("the event is appended\n"); unappended = 0; append(0, noted[0]) }
#endif
	:: d_step { printf("tick\n"); tick() }
	od
}
