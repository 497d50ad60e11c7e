/*
 * Which node owns a partition: three nodes, all voters, policy "consistent".
 *
 * Checked: at most one process could acknowledge a write at any moment,
 * whatever is lost, delayed, cut, paused, killed or restarted.
 *
 * There is no ring: every node may want the partition at any time. Time goes in
 * ticks; whatever happens between two ticks happens in any order. No node has
 * to do anything between them: every node may be slow, cut off or paused for
 * any time. An ACQUIRE can arrive at any later time, more than
 * once or never; its answer at once or never. A poll for authority, and what
 * acknowledges it, can each arrive at any time until the next one is sent.
 *
 * Where a node is started again, the process before it may still run, cut off
 * from all, and serves for as long as it believes that it may.
 *
 * -DWITHOUT_ and the name of a rule takes the rule out. README.md has the table.
 */

#ifndef B
#define B 2             /* the bound, in ticks */
#endif
#ifndef BALLOTS
#define BALLOTS 3       /* how many are ever picked */
#endif
#ifndef RESTARTS
#define RESTARTS 2
#endif

#define BIT(j)    (1 << (j))
#define ACK(j, b) ((b) * 3 + (j))

#ifdef WITHOUT_named_long
#define NAMEDFOR 1
#else
#define NAMEDFOR (2 * B)
#endif

/* A node as a voter. */
byte promised[3];               /* the highest ballot seen */
byte mute[3];                   /* ticks that it keeps silent for yet */
byte acked[3 * (BALLOTS + 1)];  /* ticks that it names a ballot for yet */

/* A node that asks for the partition, or owns it. */
byte epoch[3];
byte claim[3];          /* its ballot; 0 is none */
byte since[3];          /* ticks since its first ACQUIRE, until it owns */
byte votes[3];          /* the nodes that have answered: a mask */
byte named[3];          /* the ballots that they named: a mask */
byte wait[3];           /* ticks until B after the last answer */
bit polls[3];           /* it polls for authority */
byte sent[3];           /* ticks since its latest poll was sent */
byte asked[3];          /* nodes whose acknowledgements of it are on their way */
byte acks[3];           /* nodes whose acknowledgements have come */
bit owns[3];
byte auth[3];           /* ticks that its authority lasts yet */
byte old[3];            /* the same, of a process before */

/* A ballot, by its number. */
byte asker[BALLOTS + 1], askerEp[BALLOTS + 1];

byte restarts = RESTARTS;

#ifdef WITHOUT_lapse
#define CAN(i) (owns[i] || old[i])
#else
#define CAN(i) (owns[i] && auth[i] || old[i])
#endif
#define TWO(i) (owns[i] && auth[i] && old[i])
#define MAJORITY(m) ((m) == 3 || (m) == 5 || (m) == 6 || (m) == 7)
#ifdef WITHOUT_majority
#define ENOUGH(m) (m)
#else
#define ENOUGH(m) MAJORITY(m)
#endif

#if BALLOTS > 2
#define ALLBALLOTS(A, i) A(i, 1) A(i, 2) A(i, 3)
#else
#define ALLBALLOTS(A, i) A(i, 1) A(i, 2)
#endif

inline check() {
	assert(!(CAN(0) && CAN(1)) && !(CAN(0) && CAN(2)) && !(CAN(1) && CAN(2)));
	assert(!TWO(0) && !TWO(1) && !TWO(2))
}

/* What the voters name of it matters no more: naming it less can only hurt. */
inline giveUp(i) {
	acked[ACK(0, claim[i])] = 0; acked[ACK(1, claim[i])] = 0; acked[ACK(2, claim[i])] = 0;
	abandon(i)
}
inline abandon(i) {
	claim[i] = 0; since[i] = 0; votes[i] = 0; named[i] = 0; wait[i] = 0;
	polls[i] = 0; sent[i] = 0; asked[i] = 0; acks[i] = 0; owns[i] = 0; auth[i] = 0
}

/* i picks the ballot b and asks. */
/* The nodes are alike: ballot 1 is the first one's, ballot 2 the first or second one's. */
#define CANCLAIM(i, b) (i < b && !claim[i] && !asker[b] && b > promised[i])
inline acquire(i, b) { claim[i] = b; asker[b] = i + 1; askerEp[b] = epoch[i] }

/* j answers the ballot b of i. */
#ifdef WITHOUT_promised
#define PROMISED(j, b) 1
#else
#define PROMISED(j, b) (promised[j] <= (b))
#endif
#define CANASK(j, i, b) (asker[b] == i + 1 && !mute[j] && PROMISED(j, b))
#define NAMES(j, b, c) ((acked[ACK(j, c)] > 0 && c != b) << (c))
#if BALLOTS > 2
#define ALLNAMED(j, b) NAMES(j, b, 1) | NAMES(j, b, 2) | NAMES(j, b, 3)
#else
#define ALLNAMED(j, b) NAMES(j, b, 1) | NAMES(j, b, 2)
#endif
inline ask(j, i, b) {
#ifndef WITHOUT_remembers
	if :: promised[j] < b -> promised[j] = b :: else fi;
#endif
#ifndef WITHOUT_ends
	if :: claim[j] && claim[j] != b -> giveUp(j) :: else fi;
#endif
	if
	:: claim[i] == b && askerEp[b] == epoch[i] && !polls[i] ->
		votes[i] = votes[i] | BIT(j);
		wait[i] = B;
#ifndef WITHOUT_names
		named[i] = named[i] | ALLNAMED(j, b)
#endif
		skip
	:: else
	fi
}

/*
 * i polls the voters for authority once a majority has answered, and each node
 * that they named has answered for itself, or B after the last answer.
 */
#ifdef WITHOUT_epoch
#define SAMEEPOCH(c) 1
#else
#define SAMEEPOCH(c) (askerEp[c] == epoch[asker[c] - 1])
#endif
#define UNKNOWN(i, c) ((named[i] & BIT(c)) && \
	!((votes[i] & BIT(asker[c] - 1)) && SAMEEPOCH(c)))
#if BALLOTS > 2
#define ALLKNOWN(i) !UNKNOWN(i, 1) && !UNKNOWN(i, 2) && !UNKNOWN(i, 3)
#else
#define ALLKNOWN(i) !UNKNOWN(i, 1) && !UNKNOWN(i, 2)
#endif
#ifdef WITHOUT_wait
#define WAITED(i) 1
#else
#define WAITED(i) (!wait[i] || ALLKNOWN(i))
#endif
#define CANPOLL(i) (claim[i] && (polls[i] && sent[i] || !polls[i] && ENOUGH(votes[i]) && WAITED(i)))
inline poll(i) {
	if
	:: !polls[i] ->
		polls[i] = 1; votes[i] = 0; named[i] = 0; wait[i] = 0;
	#ifdef WITHOUT_first_poll
		if :: !owns[i] -> owns[i] = 1; since[i] = 0; auth[i] = B :: else fi
#endif
		skip
	:: else
	fi;
	sent[i] = 0; asked[i] = 0; acks[i] = 0
}

/* j acknowledges a poll of i. */
#ifdef WITHOUT_refuses
#define REFUSES(j, i) 0
#else
#define REFUSES(j, i) (promised[j] > claim[i])
#endif
#define CANACK(j, i) (polls[i] && sent[i] < B && !mute[j] && !((asked[i] | acks[i]) & BIT(j)) && !REFUSES(j, i))
#define OLDER(j, i, b) if :: b < claim[i] -> acked[ACK(j, b)] = 0 :: else fi;
inline acknowledge(j, i) {
	asked[i] = asked[i] | BIT(j);
	OLDER(j, i, 1) OLDER(j, i, 2)
	acked[ACK(j, claim[i])] = NAMEDFOR;
#ifndef WITHOUT_seen
	if :: promised[j] < claim[i] -> promised[j] = claim[i] :: else fi
#endif
	skip
}

/* The acknowledgement of j arrives. */
#ifdef WITHOUT_sent
#define LASTS(i) B
#else
#define LASTS(i) (B - sent[i])
#endif
#ifdef WITHOUT_in_time
#define INTIME(i) 1
#else
#define INTIME(i) (since[i] < 2 * B)
#endif
#define CANCOUNT(i, j) (polls[i] && (asked[i] & BIT(j)))
inline count(i, j) {
	asked[i] = asked[i] & ~BIT(j);
	acks[i] = acks[i] | BIT(j);
	if
	:: ENOUGH(acks[i]) && (owns[i] || INTIME(i)) && LASTS(i) > auth[i] ->
		owns[i] = 1; since[i] = 0; auth[i] = LASTS(i)
	:: else
	fi
}

#define NOACK(i, b) acked[ACK(i, b)] = 0;
/* A new process of the same name. It remembers nothing. */
inline restart(i) {
	restarts--; epoch[i]++;
	if
	:: owns[i] && auth[i] -> if :: auth[i] > old[i] -> old[i] = auth[i] :: else fi; abandon(i)
	:: claim[i] && !(owns[i] && auth[i]) -> giveUp(i)
	:: else
	fi;
	promised[i] = 0;
	ALLBALLOTS(NOACK, i)
#ifndef WITHOUT_mute
	mute[i] = 2 * B
#endif
	skip
}

#define FADE(i, b) down(acked[ACK(i, b)]);
inline down(v) { if :: v -> v-- :: else fi }
inline tickAt(i) {
	down(mute[i]); down(wait[i]); down(old[i]);
	ALLBALLOTS(FADE, i)
	if :: claim[i] && !owns[i] && since[i] < 2 * B -> since[i]++ :: else fi;
	if
	:: claim[i] && !owns[i] && !INTIME(i) -> giveUp(i)
	:: else
	fi;
	if
	:: polls[i] && sent[i] < B ->
		sent[i]++;
		if :: sent[i] == B -> asked[i] = 0; acks[i] = 0 :: else fi
	:: else
	fi;
	if
	:: owns[i] && auth[i] ->
		auth[i]--;
#ifndef WITHOUT_lapse
		if :: !auth[i] -> giveUp(i) :: else fi
#endif
		skip
	:: else
	fi
}
inline tick() { tickAt(0); tickAt(1); tickAt(2) }

/* printf shows only where a counterexample is replayed. */
#define PAIR(i, j) \
	:: d_step { CANACK(j, i) -> printf("%d acknowledges the poll of %d\n", j, i); acknowledge(j, i); check() } \
	:: d_step { CANCOUNT(i, j) -> printf("%d has the acknowledgement of %d\n", i, j); count(i, j); check() }
#define ASK(j, i, b) \
	:: d_step { CANASK(j, i, b) -> printf("%d answers %d, ballot %d\n", j, i, b); ask(j, i, b); check() }
#define BALLOT(i, b) \
	:: d_step { CANCLAIM(i, b) -> printf("%d picks ballot %d\n", i, b); acquire(i, b); check() } \
	ASK(0, i, b) ASK(1, i, b) ASK(2, i, b)
#define NODE(i) \
	:: d_step { CANPOLL(i) -> printf("%d polls\n", i); poll(i); check() } \
	:: d_step { claim[i] -> printf("%d gives up\n", i); giveUp(i); check() } \
	:: d_step { restarts -> printf("%d starts again\n", i); restart(i); check() } \
	PAIR(i, 0) PAIR(i, 1) PAIR(i, 2) \
	ALLBALLOTS(BALLOT, i)

init {
	do
	NODE(0) NODE(1) NODE(2)
	:: d_step { printf("tick\n"); tick(); check() }
	od
}
