/*
 * Which node owns a partition: three nodes, one partition, policy "available".
 *
 * Checked: at most one node could acknowledge a write at any moment.
 *
 * The ring names, of the members in it, the one with the lowest number. Time
 * goes in ticks; whatever happens between two ticks happens in any order. An
 * ACQUIRE that was sent can arrive at any later time, more than once or never;
 * so can its answer, as long as a node waits for it. What a poll tells
 * arrives when it is told, or never.
 *
 * -DWITHOUT_ and the name of a rule takes the rule out. README.md has the table.
 */

#ifndef B
#define B 2             /* the bound, in ticks */
#endif
#ifndef D
#define D 3             /* the detection time, 1.5 B */
#endif
#ifndef BALLOTS
#define BALLOTS 3       /* how many are ever picked */
#endif
#ifndef CRASHES
#define CRASHES 1       /* each with a restart at any later time, or none */
#endif
#ifndef PAUSES
#define PAUSES 1
#endif
#ifndef LOSSES
#define LOSSES 1        /* ticks in which two nodes do not hear each other: D - B */
#endif

#ifndef NAPS
#define NAPS 0          /* moments in which one that is suspended runs, unheard */
#endif

#ifdef WITHOUT_silence
#define DEAF 1          /* considered dead after one tick */
#else
#define DEAF D
#endif

#define BIT(j)    (1 << (j))
#define AT(i, j)  ((i) * 3 + (j))

#if NAPS
#define SLEEPER(i) ((i) == 0)   /* the others would multiply the states */
#else
#define SLEEPER(i) 1
#endif

/* A node. Masks have a bit for each other node. */
bit up[3], susp[3], ran[3];
byte gap[3];            /* ticks that it has not run for */
byte ep[3];             /* epoch, from 1 */
#if NAPS
bit brief[3];           /* it runs for a moment */
byte slept[3];          /* a bit for each of the last D ticks: it did not run */
byte asked[9];          /* ticks since one has answered a poll */
#endif
bit joined[3], in[3];
byte age[3];            /* ticks since its start, while it has not joined */
byte alone[3];          /* ticks without any other that is in */
byte vin[3];            /* the nodes that are in, as far as it knows */
byte inr[3];            /* the nodes in its ring */
byte dead[3];           /* the nodes that it considers dead */
byte lease[3];          /* the nodes on which it has a lease since they came */
byte leased[3];         /* the nodes that say that they have a lease on it */
byte silent[9];         /* ticks without hearing of one */
byte vep[9];            /* the epoch that it knows of one; 0: it knows none */
bit owned[3], retired[3];
bit writing[3];         /* a write is stored and not yet acknowledged */
byte promised[3];       /* the highest ballot answered */
byte claim[3];          /* the ballot that it takes the partition with */
byte got[3];            /* the nodes that have granted it */
byte named[9];          /* the members that their answers named */

/* A ballot, by its number: 0 is none. */
byte asker[BALLOTS + 1], askerEp[BALLOTS + 1];
byte ring[BALLOTS + 1];         /* the asker's, as it was sent last */
byte answer[3 * (BALLOTS + 1)]; /* on its way: 8 and the members it names */

byte crashes = CRASHES, pauses = PAUSES, losses = LOSSES, naps = NAPS;

#define RUNS(i)      (up[i] && !susp[i])
#define RING(i)      (inr[i] | (in[i] << (i)))
#define NAMES(i, j)  ((RING(i) & BIT(j)) && !(RING(i) & (BIT(j) - 1)))
#define LIVE(i)      (7 & ~dead[i] & ~BIT(i))
#define SERVES(i)    (up[i] && owned[i] && !retired[i])
/* What it finds when it runs again: that it did not run for B, at once or in all. */
#if NAPS && !defined(WITHOUT_stutter)
#define SUM(i)       ((slept[i] & 1) + ((slept[i] >> 1) & 1) + ((slept[i] >> 2) & 1))
#ifdef WITHOUT_polls
#define UNANSWERED(i) 1
#else
#define UNASKED(i, j) (!(dead[i] & BIT(j)) && asked[AT(i, j)] >= B)
#define UNANSWERED(i) (UNASKED(i, (i + 1) % 3) || UNASKED(i, (i + 2) % 3))
#endif
#define PAUSED(i)    (gap[i] >= B || gap[i] && SUM(i) >= B && UNANSWERED(i))
#else
#define PAUSED(i)    (gap[i] >= B)
#endif
#define CAN(i)       (SERVES(i) && !(susp[i] && PAUSED(i)))

inline check() {
	assert(!(CAN(0) && CAN(1)) && !(CAN(0) && CAN(2)) && !(CAN(1) && CAN(2)))
}

inline giveUp(i) {
	answer[3 * claim[i]] = 0; answer[3 * claim[i] + 1] = 0; answer[3 * claim[i] + 2] = 0;
	claim[i] = 0; got[i] = 0;
	named[AT(i, 0)] = 0; named[AT(i, 1)] = 0; named[AT(i, 2)] = 0
}

inline stopWrite(i) {
#ifndef WITHOUT_second
	writing[i] = 0
#else
	skip
#endif
}

inline end(i) { owned[i] = 0; retired[i] = 0; stopWrite(i) }

/* What follows from a change of the ring. */
inline settle(i) {
	inr[i] = inr[i] & vin[i] & ~dead[i] | (vin[i] & lease[i] & ~dead[i]);
	if
	:: !NAMES(i, i) ->
#ifndef WITHOUT_own_ring
		if :: owned[i] && !retired[i] -> retired[i] = 1; stopWrite(i) :: else fi;
#endif
		if :: claim[i] -> giveUp(i) :: else fi
	:: else
	fi
}

inline forget(i, j) {
	vin[i] = vin[i] & ~BIT(j); inr[i] = inr[i] & ~BIT(j);
	lease[i] = lease[i] & ~BIT(j); leased[i] = leased[i] & ~BIT(j);
	got[i] = got[i] & ~BIT(j); named[AT(i, j)] = 0
}

/* i hears something of j, of the epoch e. */
inline hear(i, j, e) {
	silent[AT(i, j)] = 0;
	if
	:: vep[AT(i, j)] != e -> vep[AT(i, j)] = e; forget(i, j); dead[i] = dead[i] & ~BIT(j)
	:: vep[AT(i, j)] == e && (dead[i] & BIT(j)) ->
		dead[i] = dead[i] & ~BIT(j);
		lease[i] = lease[i] & ~BIT(j); leased[i] = leased[i] & ~BIT(j)
	:: else
	fi
}

/* j tells i of itself: in a poll, or in the answer to one (a lease). */
#define CANTELL(i, j) (RUNS(i) && RUNS(j))
inline learn(i, j) {
	hear(i, j, ep[j]);
	if :: joined[j] -> joined[i] = 1; age[i] = 0 :: else fi;
	vin[i] = (vin[i] & ~BIT(j)) | (in[j] << (j));
	leased[i] = (leased[i] & ~BIT(j)) | (((lease[j] >> (i)) & 1) << (j));
#ifndef WITHOUT_told
	if
	:: owned[i] && !retired[i] && promised[j] > promised[i] -> retired[i] = 1; stopWrite(i)
	:: else
	fi;
#endif
	if :: vin[i] & LIVE(i) -> alone[i] = 0 :: else fi
}
inline tell(i, j, isAnswer) {
	learn(i, j);
	if
	:: isAnswer ->
		lease[i] = lease[i] | BIT(j);
#if NAPS
		learn(j, i); settle(j); /* a node that answers a poll has heard it */
		if :: SLEEPER(i) -> asked[AT(i, j)] = 0 :: else fi;
#endif
		skip
	:: else
	fi;
	settle(i);
	check()
}

/* i comes in. */
#ifdef WITHOUT_leases
#define LEASES(i) 1
#else
#define LEASES(i) (!(vin[i] & LIVE(i) & ~(lease[i] & leased[i])))
#endif
#define ASKABLE(i, j) (!vep[AT(i, j)] || ((dead[i] | lease[i]) & BIT(j)))
#define CANENTER(i) (RUNS(i) && joined[i] && !in[i] && \
	((vin[i] & LIVE(i)) != 0 && LEASES(i) || \
	 (vin[i] & LIVE(i)) == 0 && alone[i] >= D && ASKABLE(i, (i + 1) % 3) && ASKABLE(i, (i + 2) % 3)))
inline enter(i) { in[i] = 1; alone[i] = 0; settle(i); check() }

/* i considers j dead. */
#define CANBURY(i, j) (RUNS(i) && !(dead[i] & BIT(j)) && silent[AT(i, j)] >= DEAF)
inline bury(i, j) {
	forget(i, j); dead[i] = dead[i] | BIT(j); settle(i); check()
}

/* i picks the ballot b and asks. */
#ifdef WITHOUT_awaited
#define AWAITED(i) 1
#else
#define AWAITED(i) (!(LIVE(i) & vin[i] & ~inr[i]))
#endif
#define CANCLAIM(i, b) (RUNS(i) && in[i] && !owned[i] && !claim[i] && NAMES(i, i) && AWAITED(i) && \
	!asker[b] && b > promised[i])
inline acquire(i, b) {
	claim[i] = b; asker[b] = i + 1; askerEp[b] = ep[i]; ring[b] = RING(i); check()
}

#define CANRESEND(i) (RUNS(i) && claim[i] && ring[claim[i]] != RING(i))
inline resend(i) { ring[claim[i]] = RING(i) }

/* j answers the ballot b of i, unless by RETRY. */
#ifdef WITHOUT_named
#define NAMED(j, i) 1
#else
#define NAMED(j, i) (!in[j] || NAMES(j, i))
#endif
#ifdef WITHOUT_promised
#define PROMISED(j, b) 1
#else
#define PROMISED(j, b) (promised[j] <= b)
#endif
#ifdef WITHOUT_rival
#define RIVAL(j, b) 1
#else
#define RIVAL(j, b) (claim[j] <= b)
#endif
#ifdef WITHOUT_known
#define KNOWN(j, b) 1
#else
#define KNOWN(j, b) (!owned[j] || !(ring[b] & ~inr[j] & ~BIT(j)))
#endif
#define CANASK(j, i, b) (RUNS(j) && asker[b] == i + 1 && askerEp[b] >= vep[AT(j, i)])
inline ask(j, i, b) {
	hear(j, i, askerEp[b]);
	if :: claim[i] == b && ep[i] == askerEp[b] -> vin[j] = vin[j] | BIT(i) :: else fi;
	settle(j);
	if
	:: NAMED(j, i) && PROMISED(j, b) && RIVAL(j, b) && KNOWN(j, b) ->
#ifndef WITHOUT_yields
		if :: claim[j] -> giveUp(j) :: else fi;
#endif
#ifndef WITHOUT_ends
		if :: owned[j] -> end(j) :: else fi;
#endif
#ifndef WITHOUT_remembers
		if :: promised[j] < b -> promised[j] = b :: else fi;
#endif
		if
		:: up[i] && claim[i] == b && ep[i] == askerEp[b] ->
			answer[3 * b + j] = 8 | (in[j] << (j)) | (vin[j] & LIVE(j))
		:: else
		fi
	:: else
	fi;
	check()
}

/* The answer of j arrives. An answer to an earlier process is lost. */
#define CANHEAR(i, j) (RUNS(i) && claim[i] && answer[3 * claim[i] + j])
inline answered(i, j) {
	got[i] = got[i] | BIT(j);
	named[AT(i, j)] = answer[3 * claim[i] + j] & 7;
	answer[3 * claim[i] + j] = 0;
	check()
}

/* The nodes whose answers i needs: all that live and are in, or can be polled. (The machine
 * needs more: those too that it has not told that it is in. It begins less than the model.) */
#define COUNT(i)      (LIVE(i) & (vin[i] | lease[i]))
#ifdef WITHOUT_unknown
#define UNKNOWN(i, j) 0
#elif defined(WITHOUT_unknown_dead)
#define UNKNOWN(i, j) (named[AT(i, j)] & ~BIT(i) & ~inr[i] & ~dead[i])
#else
#define UNKNOWN(i, j) (named[AT(i, j)] & ~BIT(i) & ~inr[i])
#endif
#ifdef WITHOUT_all
#define ALL(i) (got[i] || !COUNT(i))
#else
#define ALL(i) (!(COUNT(i) & ~got[i]))
#endif
#ifdef WITHOUT_own_answer
#define OWNANSWER(i) 1
#else
#define OWNANSWER(i) (promised[i] <= claim[i])
#endif
#define CANBEGIN(i) (RUNS(i) && claim[i] && NAMES(i, i) && ALL(i) && AWAITED(i) && OWNANSWER(i) && \
	!UNKNOWN(i, (i + 1) % 3) && !UNKNOWN(i, (i + 2) % 3))
inline begin(i) {
	owned[i] = 1; retired[i] = 0;
	if :: promised[i] < claim[i] -> promised[i] = claim[i] :: else fi;
	giveUp(i); check()
}

/* A write is stored, and later acknowledged if the ownership is the same. */
inline store(i) { writing[i] = 1 }
inline acknowledge(i) {
	writing[i] = 0;
	assert(!CAN((i + 1) % 3) && !CAN((i + 2) % 3))
}

/* Faults. */
#ifdef WITHOUT_start
#define STARTED(i) joined[i] = 1; alone[i] = D;
#else
#define STARTED(i)
#endif
inline clear(i) {
	if :: claim[i] -> giveUp(i) :: else fi;
	joined[i] = 0; in[i] = 0; age[i] = 0; alone[i] = 0;
	silent[AT(i, 0)] = 0; silent[AT(i, 1)] = 0; silent[AT(i, 2)] = 0;
	lease[i] = 0; leased[i] = 0; inr[i] = 0
}
inline crash(i) {
	crashes--; up[i] = 0; susp[i] = 0; gap[i] = 0; ran[i] = 0;
#if NAPS
	brief[i] = 0; slept[i] = 0;
#endif
	end(i); clear(i); writing[i] = 0; promised[i] = 0; vin[i] = 0; dead[i] = 0;
	vep[AT(i, 0)] = 0; vep[AT(i, 1)] = 0; vep[AT(i, 2)] = 0
}
inline restart(i) { up[i] = 1; ep[i]++; STARTED(i) }
inline suspend(i) { pauses--; susp[i] = 1; gap[i] = 0 }
inline wake(i) {
	susp[i] = 0;
	if
	:: PAUSED(i) ->
#if NAPS
		slept[i] = 0;
#endif
#ifndef WITHOUT_pause
#ifndef WITHOUT_pause_ownership
		end(i);
#endif
#ifndef WITHOUT_pause_claims
		if :: claim[i] -> giveUp(i) :: else fi;
#endif
#ifndef WITHOUT_pause_heard
		silent[AT(i, 0)] = 0; silent[AT(i, 1)] = 0; silent[AT(i, 2)] = 0;
#endif
#ifndef WITHOUT_pause_start
		joined[i] = 0; in[i] = 0; age[i] = 0; alone[i] = 0; inr[i] = 0;
#endif
		lease[i] = 0; leased[i] = 0;
		STARTED(i)
#endif
		skip
	:: else
	fi;
	gap[i] = 0;
	check()
}
inline resume(i) { ran[i] = 1; wake(i) }
/* It runs for a moment, and is heard only in what it does then. */
inline nap(i) { naps--; brief[i] = 1; wake(i) }
inline again(i) { brief[i] = 0; susp[i] = 1 }
inline awake(i) { brief[i] = 0; ran[i] = 1 }
/* A tick. All nodes that run hear all others that have run, but for two of them. */
inline pass(i, j, deaf) {
	if
	:: up[j] && (!susp[j] || ran[j]) && !(deaf) -> learn(i, j)
	:: else -> if :: silent[AT(i, j)] < D -> silent[AT(i, j)]++ :: else fi
	fi;
	if :: silent[AT(i, j)] >= B -> lease[i] = lease[i] & ~BIT(j) :: else fi
}
inline passAt(i, j, dj, k, dk) {
#if NAPS
	if :: SLEEPER(i) -> slept[i] = ((slept[i] << 1) | susp[i]) & 7 :: else fi;
	if :: SLEEPER(i) && asked[AT(i, j)] < B -> asked[AT(i, j)]++ :: else fi;
	if :: SLEEPER(i) && asked[AT(i, k)] < B -> asked[AT(i, k)]++ :: else fi;
#endif
	if
	:: RUNS(i) ->
		pass(i, j, dj); pass(i, k, dk);
		settle(i);
		if
		:: !joined[i] -> age[i]++; if :: age[i] >= D -> joined[i] = 1; age[i] = 0 :: else fi
		:: else
		fi;
		if
		:: in[i] || (vin[i] & LIVE(i)) -> alone[i] = 0
		:: else -> if :: alone[i] < D -> alone[i]++ :: else fi
		fi
	:: up[i] && susp[i] ->
#ifdef WITHOUT_ticking
		if :: silent[AT(i, j)] < D -> silent[AT(i, j)]++ :: else fi;
		if :: silent[AT(i, k)] < D -> silent[AT(i, k)]++ :: else fi;
#endif
		if :: gap[i] < B -> gap[i]++ :: else fi
	:: else
	fi
}
inline tick(d01, d02, d12) {
	passAt(0, 1, d01, 2, d02);
	passAt(1, 0, d01, 2, d12);
	passAt(2, 0, d02, 1, d12);
	ran[0] = 0; ran[1] = 0; ran[2] = 0;
	check()
}

/* printf shows only where a counterexample is replayed. */
#define PAIR(i, j) \
	:: d_step { CANTELL(i, j) -> printf("%d hears the poll of %d\n", i, j); tell(i, j, 0) } \
	:: d_step { CANTELL(i, j) -> printf("%d polls %d\n", i, j); tell(i, j, 1) } \
	:: d_step { CANBURY(i, j) -> printf("%d considers %d dead\n", i, j); bury(i, j) } \
	:: d_step { CANHEAR(i, j) -> printf("%d has the answer of %d\n", i, j); answered(i, j) }
#define ASK(j, i, b) \
	:: d_step { CANASK(j, i, b) -> printf("%d is asked by %d, ballot %d\n", j, i, b); ask(j, i, b) }
#define BALLOT(i, b) \
	:: d_step { CANCLAIM(i, b) -> printf("%d picks ballot %d\n", i, b); acquire(i, b) } \
	ASK((i + 1) % 3, i, b) \
	ASK((i + 2) % 3, i, b)
#ifdef WRITES
#define WRITE(i) \
	:: d_step { RUNS(i) && SERVES(i) && !writing[i] -> printf("%d stores a write\n", i); store(i) } \
	:: d_step { RUNS(i) && writing[i] -> printf("%d acknowledges it\n", i); acknowledge(i) }
#else
#define WRITE(i)
#endif
#if NAPS
#define NAP(i) \
	:: d_step { susp[i] && gap[i] && naps -> printf("%d runs for a moment\n", i); nap(i) } \
	:: d_step { brief[i] -> printf("%d sleeps again\n", i); again(i) } \
	:: d_step { brief[i] -> printf("%d goes on\n", i); awake(i) }
#define TICKS !brief[0] && !brief[1] && !brief[2]
#else
#define NAP(i)
#define TICKS 1
#endif
#define NODE(i) \
	:: d_step { CANENTER(i) -> printf("%d comes in\n", i); enter(i) } \
	:: d_step { CANRESEND(i) -> printf("%d tells its new ring\n", i); resend(i) } \
	:: d_step { RUNS(i) && claim[i] -> printf("%d gives up\n", i); giveUp(i) } \
	:: d_step { CANBEGIN(i) -> printf("%d OWNS\n", i); begin(i) } \
	:: d_step { RUNS(i) && owned[i] && retired[i] -> printf("%d ends, retired\n", i); end(i) } \
	WRITE(i) \
	:: d_step { up[i] && crashes -> printf("%d CRASHES\n", i); crash(i) } \
	:: d_step { !up[i] -> printf("%d starts again\n", i); restart(i) } \
	:: d_step { RUNS(i) && pauses && SLEEPER(i) -> printf("%d is suspended\n", i); suspend(i) } \
	:: d_step { up[i] && susp[i] -> printf("%d runs again\n", i); resume(i) } \
	NAP(i)
#define TICK(d01, d02, d12) printf("tick\n"); tick(d01, d02, d12)

init {
	d_step {
		ep[0] = 1; ep[1] = 1; ep[2] = 1;
#ifdef FRESH
		/* All three have just been started. */
		up[0] = 1; up[1] = 1; up[2] = 1;
		STARTED(0) STARTED(1) STARTED(2)
		skip
#else
		/* All three are in, and the first one owns the partition. */
		up[0] = 1; up[1] = 1; up[2] = 1;
		joined[0] = 1; joined[1] = 1; joined[2] = 1;
		in[0] = 1; in[1] = 1; in[2] = 1;
		vin[0] = 6; vin[1] = 5; vin[2] = 3;
		inr[0] = 6; inr[1] = 5; inr[2] = 3;
		lease[0] = 6; lease[1] = 5; lease[2] = 3;
		leased[0] = 6; leased[1] = 5; leased[2] = 3;
		vep[1] = 1; vep[2] = 1; vep[3] = 1; vep[5] = 1; vep[6] = 1; vep[7] = 1;
#ifdef LATE
		/* But that one was started anew and is not in yet, and the second one sleeps. */
		in[0] = 0; ep[0] = 2;
		vin[1] = 4; vin[2] = 2;
		inr[1] = 4; inr[2] = 2;
		leased[0] = 4; leased[1] = 4;
		lease[1] = 4;
		vep[3] = 2; vep[6] = 2;
		susp[1] = 1
#else
		owned[0] = 1
#endif
#endif
	}
	do
	PAIR(0, 1) PAIR(0, 2) PAIR(1, 0) PAIR(1, 2) PAIR(2, 0) PAIR(2, 1)
	BALLOT(0, 1) BALLOT(1, 1) BALLOT(2, 1)
#if BALLOTS > 1
	BALLOT(0, 2) BALLOT(1, 2) BALLOT(2, 2)
#endif
#if BALLOTS > 2
	BALLOT(0, 3) BALLOT(1, 3) BALLOT(2, 3)
#endif
#if BALLOTS > 3
	BALLOT(0, 4) BALLOT(1, 4) BALLOT(2, 4)
#endif
	NODE(0) NODE(1) NODE(2)
	:: d_step { TICKS -> TICK(0, 0, 0) }
	:: d_step { TICKS && losses -> losses--; TICK(1, 0, 0) }
	:: d_step { TICKS && losses -> losses--; TICK(0, 1, 0) }
	:: d_step { TICKS && losses -> losses--; TICK(0, 0, 1) }
	od
}
