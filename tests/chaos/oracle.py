"""
The judge of a chaos run: holds what each client got against what the simulated Coze saw, once all is over.

An *attempt* is a request of the service to Coze to begin a chat; it is *taken* when Coze has begun one. A message is
*accepted* when an attempt of it was taken. Nothing may be counted as

wrong     An answer that is not exactly Coze's answer to this question of this user (the simulator's answers quote the
          question and the one before it in the conversation, which must be of the same session), or names another session or
          conversation; a question that reached Coze changed; an answer that breaks the rules of HTTP, JSON or the stream
          (chunk_index from 0 on, full_content the sum of the chunks, exactly one end); a status that says that the client
          is at fault; a 500 where Coze did not say that the service's configuration is at fault.
lost      - a request without outcome. Each has exactly one: an answer, {"detail"}, an error event, or it was left by its client;
            a connection closed early, or nginx' 502 or 504, only if the worker or the nginx that carried it was killed, or all
            workers were gone with their master, or nginx was told to close its idle connections while one was used again;
          - a message that a worker broke off as it was ending, before DRAIN_TIMEOUT_SECONDS had passed since it was told to end;
          - an answered message that Coze did not take, or that is not in the conversation that the session then goes on with;
          - a message_count below the messages of which clients know that they were accepted;
          - after the end: a turn that still holds a session, a chat that nobody reads and that was not cancelled.
doubled   A second attempt after one was taken, unless Coze has said that this chat failed; an attempt more than a second after
          the client was told the end, or left; a message_count above the messages that were accepted.
disorder  Of two messages of a session: the later one at Coze before the earlier one, or between two attempts of it. Earlier is
          whose end was told, or whose place in the queue was seen in Redis, before the other one was sent.
hung      A request without end at the time limit that the settings give it and a margin (chaos.LIMIT).

What the service does not promise is not held against it, and counted as *open*:
- A killed worker takes along what it has not yet told Redis, and what it still had to tell a Redis that was away. Its
  messages may or may not be counted, and their conversations bound.
- Who holds a session, or a place in its queue, and cannot tell Redis so for SESSION_LOCK_SECONDS, because his worker is stopped
  or Redis is away, has lost it: order, and which conversation counts, are open around such a time.
- A clear or bind, and the messages that run meanwhile, may come in any order. (A bind takes no message out of the count.)
- Coze may have accepted a message and not have said so, because a connection broke or it stalled. Then the service cannot count
  it, nor cancel it.
"""
import bisect
import re
from collections import defaultdict

from crowd import ANSWERED, BROKEN, ERROR, ERROR_EVENT, GATEWAY, HUNG, LEFT, MALFORMED, Message, fails
from stack import filler

SLACK = 0.05     # seconds that two processes may see the same moment apart
STALE = 0.5      # that nginx may take a dead worker's connection for a living one
LATE = 1         # within which a turn hears that its client has left, and Coze what was sent to it
TOLD = 2         # that a worker may hear later than we that it is to end
CANCELLED = 3    # within which Coze must have heard of it
RECONNECTED = 2  # after Redis' return
AT_FAULT = {500: {4100, 'requires_action'}, 400: {4014, 'unknown_conversation'}}

STOPPING = '服务正在重启，请稍后重试'
REDIS_AWAY = r'Redis (restarted|killed|frozen|connections cut)'
KILLS = r'worker killed|all workers killed'
WORKER_ENDS = KILLS + '|worker terminated|reload|master killed'


class Attempt:
    def __init__(self, entry, chats):
        self.at, self.asked = entry['t_ms'] / 1000, entry['query'].get('conversation_id')
        body = entry['body']
        self.content, self.user = body['additional_messages'][-1]['content'], body['user_id']
        self.chat = chats.get(entry.get('chat_id'))  # None: not taken

    @property
    def failed(self):
        return self.chat['status'] == 'failed'


class Spans:
    """Stretches of time, merged where less than `gap` is between them."""

    def __init__(self, spans, gap=0):
        self.spans = []
        for begin, end in sorted(map(tuple, spans)):
            if self.spans and begin <= self.spans[-1][1] + gap:
                self.spans[-1][1] = max(self.spans[-1][1], end)
            else:
                self.spans.append([begin, end])
        self.ends = [end for _, end in self.spans]

    def first(self, begin, end):
        """The first that overlaps with begin to end, or None."""
        at = bisect.bisect_left(self.ends, begin)
        return self.spans[at] if at < len(self.spans) and self.spans[at][0] <= end else None

    def overlap(self, begin, end):
        return self.first(begin, end) is not None

    def longer(self, seconds):
        return Spans([span for span in self.spans if span[1] - span[0] >= seconds])


class Verdict:
    """The findings by kind; `open`: how often something was left open, by what."""

    KINDS = ('wrong', 'lost', 'doubled', 'disorder', 'hung')

    def __init__(self):
        self.findings = {kind: [] for kind in self.KINDS}
        self.open = defaultdict(int)

    def find(self, kind, what, call=None):
        self.findings[kind].append('%s%s' % (what, ': %r' % call if call is not None else ''))

    @property
    def good(self):
        return not any(self.findings.values())


class Judge:
    """
    entries, chats: of the simulator. carried: {word: numbers of the workers that nginx gave a request to}, of nginx' log, which
    lacks what a killed nginx had not written yet. lock_s: SESSION_LOCK_SECONDS; drain_s: DRAIN_TIMEOUT_SECONDS. silences: when
    the simulator answered nobody (begin, end): what was sent to it then, it saw later, also what was called off meanwhile.
    """

    def __init__(self, crowd, faults, entries, chats, carried, lock_s, drain_s, silences=()):
        self.crowd, self.faults, self.carried = crowd, faults, carried
        self.verdict = Verdict()
        chats = {chat['id']: chat for chat in chats}
        self.attempts = defaultdict(list)
        for entry in entries:
            if entry['path'] == '/v3/chat' and isinstance(entry['body'], dict) and 'additional_messages' in entry['body']:
                attempt = Attempt(entry, chats)
                self.attempts[attempt.content.split(' ')[0]].append(attempt)
        self.redis = self.spans(REDIS_AWAY, RECONNECTED)
        self.kills, self.ends = self.spans(KILLS), self.spans(WORKER_ENDS)
        self.coze = Spans(self.spans('Coze ', 1).spans + [(begin, end + 1) for begin, end in silences], gap=1)
        # When workers that were told to end break off what they have not finished.
        self.breaking = Spans([(fault.begin + drain_s - SLACK, fault.end + drain_s + TOLD) for fault in
                               self.faults.of('reload|worker terminated|master killed')])
        self.closings = self.spans('nginx reloaded|reload, changed', 2)  # of idle connections
        self.stops = self.spans('worker stopped')
        self.lapses = {None: self.lapses_of(None, lock_s)}
        for worker in set().union(*(fault.victims for fault in faults.of('worker stopped')), *carried.values()):
            self.lapses[worker] = self.lapses_of(worker, lock_s)

    def lapses_of(self, worker, lock_s):
        """
        When what this worker holds may have lapsed (None: any of them). It is renewed each third of the lock time, and once
        Redis is back: what keeps it from that for two thirds is too long.
        """
        stops = [(fault.begin, fault.end) for fault in self.faults.of('worker stopped')
                 if worker is None or worker in fault.victims]
        away = [(fault.begin, fault.end + RECONNECTED) for fault in self.faults.of(REDIS_AWAY)]
        return Spans(stops + away, gap=0.3).longer(lock_s * 0.6)

    def may_have_lapsed(self, begin, end, *messages):
        carriers = set().union(*(self.carried.get(message.word, {None}) or {None} for message in messages))
        return any(self.lapses[carrier].overlap(begin, end) for carrier in carriers)

    def spans(self, pattern, after=0):
        return Spans([(fault.begin, fault.end + after) for fault in self.faults.of(pattern)], gap=1)

    def judge(self, known=()):
        """known: words of messages that are not judged."""
        known = set(known)
        for session in self.crowd.sessions:
            self.judge_session(session)
            known |= {message.word for message in session.messages}
        for call in self.crowd.calls:
            self.judge_outcome(call)
        for word in self.attempts:
            if word not in known:
                self.verdict.find('wrong', 'Coze was asked what nobody asked: %.80s' % word)
        return self.verdict

    def judge_session(self, session):
        for message in session.messages:
            self.judge_outcome(message)
            self.judge_attempts(message)
            if message.outcome == ANSWERED:
                self.judge_answer(message)
            if message.outcome in (LEFT, BROKEN):
                self.judge_leaving(message)
        for change in session.changes:
            self.judge_outcome(change)
        self.judge_order(session)
        self.judge_memory(session)

    # --- outcomes ---

    def judge_outcome(self, call):
        find = self.verdict.find
        if call.outcome == HUNG:
            find('hung', 'hung', call)
        elif call.outcome == MALFORMED:
            find('wrong', 'malformed', call)
        elif call.outcome in (BROKEN, GATEWAY) and not self.may_break(call):
            find('lost', 'no outcome', call)
        elif call.outcome in (ERROR, ERROR_EVENT) and call.detail == STOPPING and not self.may_stop(call):
            find('lost', 'broken off', call)
        elif call.outcome is None:
            find('lost', 'nothing known', call)
        elif call.outcome == ERROR and call.status not in (409, 503) and not self.is_at_fault(call):
            find('wrong', 'status', call)

    def is_at_fault(self, call):
        """Whether Coze has said what this status stands for."""
        if call.status not in AT_FAULT or not isinstance(call, Message):
            return call.status == 404 and call.path.endswith('/info')
        if call.status == 400 and any(fault.overlaps(call.sent, call.ended) for fault in self.faults.of('Coze says 4002')):
            return True
        return AT_FAULT[call.status] & {call.sim.get('code'), call.sim.get('fault')}

    def may_break(self, call):
        """Whether what carried the request was killed; see above."""
        begin, end = call.sent - STALE, call.ended + SLACK
        if any(fault.overlaps(begin, end) for fault in self.faults.of('nginx worker killed|nginx restarted|master killed')):
            return True
        if call.outcome == BROKEN and call.began_answer is None and self.closings.overlap(begin, end):
            return True
        carried = self.carried.get(call.word)  # None: a killed nginx has not written it down
        return any(fault.overlaps(begin, end) and (carried is None or fault.victims & carried) for fault in self.faults.of(KILLS))

    def may_stop(self, call):
        """Whether a worker that carried it has had the time that it is given; one that is stopped hears late that it is to end."""
        return self.breaking.overlap(call.ended - TOLD, call.ended) or self.stops.overlap(call.sent, call.ended)

    # --- attempts ---

    def judge_attempts(self, message):
        attempts = self.attempts[message.word]
        for attempt in attempts:
            if attempt.content != message.content or attempt.user != message.session.user:
                self.verdict.find('wrong', 'the question was changed on its way', message)
        taken = None
        for attempt in attempts:
            if taken is not None and not taken.failed:
                self.verdict.find('doubled', 'an attempt at %.3f, and the one at %.3f was taken' % (attempt.at, taken.at), message)
            taken = attempt if attempt.chat else taken
        late = [attempt for attempt in attempts if attempt.at > message.ended + LATE]
        if late and not self.stops.overlap(message.ended, late[-1].at) and not self.coze.overlap(message.ended, late[-1].at):
            self.verdict.find('doubled', 'an attempt %.3f s after the end' % (late[-1].at - message.ended), message)

    # --- answers ---

    def judge_answer(self, message):
        taken = [attempt for attempt in self.attempts[message.word] if attempt.chat]
        if not taken:
            self.verdict.find('lost', 'answered, but not accepted', message)
            return
        chat = taken[-1].chat
        if chat['conversation_id'] != message.conversation:
            self.verdict.find('wrong', 'in conversation %s' % chat['conversation_id'], message)
        elif not self.is_answer(message, chat):
            self.verdict.find('wrong', 'not the answer: %.200r' % message.heard, message)

    def is_answer(self, message, chat):
        sim = message.sim
        if 'answer' in sim:
            return message.heard == sim['answer']
        if 'answer_bytes' in sim:
            return message.heard == filler(sim['answer_bytes'])
        said = '收到：“%s”。这是本次会话的第 %d 轮' % (message.text, chat['round'])
        if not message.heard.startswith(said):
            return False
        rest = message.heard[len(said):]
        if rest == '。':
            return chat['round'] == 1
        previous = re.fullmatch('，上一轮您说：“(.*)”。', rest, re.DOTALL)
        word = previous.group(1).split(' ')[0] if previous else None
        return any(other.word == word for other in message.session.messages)

    def judge_leaving(self, message):
        """A chat that nobody waits for any more must not run on at Coze."""
        for attempt in self.attempts[message.word]:
            chat = attempt.chat
            if chat is None or chat['status'] != 'completed' or chat['ended_ms'] / 1000 < message.ended + CANCELLED:
                continue
            begin, end = attempt.at, message.ended + CANCELLED
            if fails(message.sim) or self.kills.overlap(begin, end) or self.stops.overlap(begin, end) or self.coze.overlap(begin, end):
                self.verdict.open['chats not cancelled'] += 1
            else:
                self.verdict.find('lost', 'not cancelled, although left', message)

    # --- order ---

    def judge_order(self, session):
        asked = [(message, self.attempts[message.word]) for message in session.messages if self.attempts[message.word]]
        for earlier, first in asked:
            for later, second in asked:
                if earlier is not later and self.is_before(earlier, later) and first[-1].at > second[0].at:
                    self.disorder('overtaken by %s' % later.word, earlier, later)
                elif first[0].at < second[0].at < first[-1].at:
                    self.disorder('interrupted by %s' % later.word, earlier, later)

    def is_before(self, earlier, later):
        if earlier.placed is not None and earlier.placed < later.sent:
            return True
        return earlier.ended < later.sent and earlier.outcome not in (LEFT, BROKEN, GATEWAY)

    def disorder(self, what, earlier, later):
        begin, end = min(earlier.sent, later.sent), max(earlier.ended, later.ended)
        if self.may_have_lapsed(begin, end, earlier, later):
            self.verdict.open['order'] += 1
        else:
            self.verdict.find('disorder', what, earlier)

    # --- what the session remembers ---

    def judge_memory(self, session):
        """Its messages and changes in the order in which they came to Coze: which conversation goes on, and how many count."""
        memory = Memory(self, session)
        for message in sorted((message for message in session.messages if self.taken(message)),
                              key=lambda message: self.taken(message).at):
            memory.ask(message)
        memory.close()

    def taken(self, message):
        """The first attempt that was taken: then the message is counted, and the conversation bound."""
        return next((attempt for attempt in self.attempts[message.word] if attempt.chat), None)

    def is_certain(self, message):
        """Whether the service knows for sure that it was accepted, and has told Redis so."""
        if message.outcome not in (ANSWERED, ERROR_EVENT) and not (message.outcome == LEFT and message.status == 200 and message.streams):
            return False
        begin, end = self.attempts[message.word][0].at, message.ended + (2 if message.outcome == LEFT else 0)
        if self.may_have_lapsed(message.sent, end, message):
            return False
        away = self.redis.first(begin, end)
        if away is not None:
            end = max(end, away[1] + 1)
        ends = self.ends if away is not None else self.kills
        return not ends.overlap(begin - SLACK, end)


class Memory:
    """What a session may remember: its conversation is one of `possible`, and it has counted `least` to `most` messages."""

    def __init__(self, judge, session):
        self.judge, self.session = judge, session
        self.possible = {None}
        self.least = self.most = 0
        self.waiting = sorted(session.changes, key=lambda change: change.sent)

    def done(self, change):
        """When it has happened, if it has: a frozen Redis does what it was told when it thaws."""
        away = self.judge.redis.first(change.sent, change.ended)
        if change.outcome == ANSWERED or away is None:
            return change.ended + SLACK
        return max(change.ended, away[1]) + SLACK

    def change(self, change, sure):
        value = change.conversation
        if change.outcome != ANSWERED or any(other is not change and other.sent <= self.done(change) and
                                             self.done(other) >= change.sent for other in self.session.changes):
            sure = False
        self.possible = {value} if sure else self.possible | {value}
        if change.kind == 'clear':
            self.least = 0
            if sure:
                self.most = 0

    def ask(self, message):
        judge, attempts = self.judge, self.judge.attempts[message.word]
        taken = judge.taken(message)
        begin, end = message.sent, message.ended + (2 if message.outcome in (LEFT, BROKEN) else 0)
        # Changes that were over when it was sent; those that may have come before it; those beside it.
        self.apply(lambda change: self.done(change) < begin, sure=True)
        self.apply(lambda change: change.sent < taken.at, sure=False)
        beside = {change.kind for change in self.session.changes if change.sent < end and self.done(change) > begin}
        self.check_asked(message, attempts)
        conversation = taken.chat['conversation_id']
        certain = judge.is_certain(message)
        self.possible = {conversation} if certain and not beside else self.possible | {conversation}
        if certain and 'clear' not in beside:
            self.least += 1
        else:
            judge.verdict.open['messages that may count'] += 1
        self.most += 1

    def apply(self, when, sure):
        for change in [change for change in self.waiting if when(change)]:
            self.waiting.remove(change)
            self.change(change, sure)

    def check_asked(self, message, attempts):
        """It went on with what the session remembered; or, once Coze did not know that, with a new conversation."""
        first = attempts[0].asked
        if first not in self.possible and not self.judge.may_have_lapsed(message.sent, message.ended, message):
            self.judge.verdict.find('lost', 'asked in conversation %s, not in %s' % (first, sorted(map(str, self.possible))), message)

    def close(self):
        find = self.judge.verdict.find
        last = max((message.ended for message in self.session.messages), default=0)
        self.apply(lambda change: change.sent > last + 2, sure=True)
        self.apply(lambda change: True, sure=False)
        if self.session.info is None:
            find('lost', 'nothing is known of session %s' % self.session.id)
            return
        status, answer = self.session.info
        if status == 404:
            if self.least > 0:
                find('lost', 'session %s is gone' % self.session.id)
            return
        count = answer['message_count']
        if count < self.least:
            find('lost', '%s has counted %d of at least %d messages' % (self.session.id, count, self.least))
        if count > self.most:
            find('doubled', '%s has counted %d of at most %d messages' % (self.session.id, count, self.most))
        if self.least != self.most:
            self.judge.verdict.open['sessions whose count is not exact'] += 1
        if answer['conversation_id'] not in self.possible:
            find('lost', '%s is in conversation %s, not in %s' % (
                self.session.id, answer['conversation_id'], sorted(map(str, self.possible))))
