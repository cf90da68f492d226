// What one tab holds: the turns of its conversation and what was said of them. The truth is in the gateway's store;
// after a reload it is read from there.

import { give, readAnswer, readConversation, Refused, stream, takeBack } from "./api.js";

const MAX_TURNS_SENT = 16;
const KEPT = "flywheel-conversation";

export const state = { domain: "", turns: [], conversation: null, busy: false, editing: null, stopping: null };

/** An answer as the page shows it; `id` is empty until it is stored, `sources` null where nothing was looked up.
 * `corrections` are all that were given, as `id`, `text` and `other_words`; the last one counts. */
const blank = (position = null) => ({
  id: "", text: "", version: "", finish: "", position, thumb: 0, rating: 0, correction: "", comment: "", sources: null,
  corrections: [] });

/** What the conversation goes on from: the correction where there is one. */
export const final = (answer) => answer.correction || answer.text;

/** Whether a blind choice is open; until it is made nothing may tell who wrote which. */
export const choosing = (turn) => turn.drafts.length > 0 && turn.chosen === null;

const asked = (question) => ({ question, answer: blank(), drafts: [], chosen: null, error: "", reason: "" });

/** The question of turn `number` after the turns before it that have an answer; the oldest fall away. */
export function messages(number) {
  const told = state.turns.slice(Math.max(0, number - MAX_TURNS_SENT), number).filter((turn) => final(turn.answer));
  const spoken = told.flatMap((turn) => [
    { role: "user", content: turn.question }, { role: "assistant", content: final(turn.answer) }]);
  return [...spoken, { role: "user", content: state.turns[number].question }];
}

/** The turn and the answer of an id. */
export function find(id) {
  for (const turn of state.turns) {
    for (const answer of [turn.answer, ...turn.drafts]) if (id && answer.id === id) return { turn, answer };
  }
  return null;
}

function goOnIn(conversation) {
  state.conversation = conversation;
  if (conversation) sessionStorage.setItem(KEPT, conversation);
  else sessionStorage.removeItem(KEPT);
}

/** A new conversation; an answer that is being written is stopped. */
export function begin() {
  state.stopping?.abort();
  state.turns = [];
  state.editing = null;
  goOnIn(null);
}

/** Ask a new question; an open choice before it is left unmade. Draws whenever there is something new. */
export async function ask(question, draw) {
  for (const turn of state.turns) if (choosing(turn)) turn.drafts = [];
  state.turns.push(asked(question));
  await again(state.turns.length - 1, draw);
}

/** Answer turn `number`, which has no answer yet or one that failed. */
export async function again(number, draw) {
  const turn = state.turns[number];
  Object.assign(turn, { answer: blank(), error: "", reason: "" });
  const body = { model: state.domain, messages: messages(number) };
  if (state.conversation) body.conversation_id = state.conversation;
  await written(turn, "/v1/chat/completions", body, [turn.answer], draw);
}

/** Two fresh drafts for turn `number`; the answer that was there stays until one is chosen. */
export async function twice(number, draw) {
  const turn = state.turns[number];
  Object.assign(turn, { drafts: [blank(0), blank(1)], chosen: null, error: "", reason: "" });
  const body = { model: state.domain, messages: messages(number), conversation_id: state.conversation };
  await written(turn, "/v1/drafts", body, turn.drafts, draw);
  if (!turn.drafts.every((draft) => draft.id && draft.text)) turn.drafts = [];
  draw();
}

/** Let a stream flow into `answers`, one for each choice; an error becomes the turn's words. */
async function written(turn, path, body, answers, draw) {
  state.busy = true;
  state.stopping = new AbortController();
  draw();
  try {
    for await (const chunk of stream(path, body, state.stopping.signal)) take(chunk);
  } catch (error) {
    if (error.name === "AbortError") for (const answer of answers) answer.finish ||= "cancelled";
    else [turn.error, turn.reason] = explain(error);
  } finally {
    state.busy = false;
    state.stopping = null;
    draw();
  }

  function take(chunk) {
    for (const choice of chunk.choices) {
      const answer = answers[choice.index];
      answer.text += choice.delta.content ?? "";
      if (!choice.finish_reason) continue;
      const told = { version: chunk.version ?? "", sources: choice.sources ?? null };
      Object.assign(answer, { id: choice.answer_id, finish: choice.finish_reason, ...told });
      if (state.turns.includes(turn)) goOnIn(chunk.conversation_id); // not if a new one was begun meanwhile
    }
    draw();
  }
}

/** The key of the text that tells a person what went wrong, and a reason to fill in, or nothing. */
export function explain(error) {
  if (!(error instanceof Refused)) {
    console.error(error);
    return ["failed", ""];
  }
  const { status, code, message } = error;
  if (status === 429) return ["rate_limited", ""];
  if (status === 401 || status === 403) return ["signed_out", ""];
  if ([0, 408, 502, 503, 504].includes(status)) return ["engine_away", ""];
  if (status === 413 || /length|too_long|too_large/.test(code)) return ["too_long", ""];
  return status < 500 ? ["not_accepted", message] : ["failed", ""];
}

/** Feedback that was not acknowledged: the key of the text that says why, and a reason to fill in. */
export class NotSaved extends Error {
  constructor(key, reason = "") {
    super(key);
    this.key = key;
    this.reason = reason;
  }
}

// A key stays with what was said until it is acknowledged: a failed click that is repeated is counted once.
const pending = new Map();

async function say(answerId, kind, said = {}) {
  const content = JSON.stringify([answerId, kind, said]);
  if (!pending.has(content)) pending.set(content, `page-${crypto.randomUUID?.() ?? random()}`);
  const stored = await saved(give({ answer_id: answerId, kind, ...said, idempotency_key: pending.get(content) }));
  pending.delete(content);
  return stored;
}

async function saved(work) {
  try {
    return await work;
  } catch (error) {
    const passing = error instanceof Refused && (error.status === 0 || error.status >= 500);
    throw passing ? new NotSaved("not_saved") : new NotSaved(...explain(error));
  }
}

/** Where a page without TLS has no randomUUID. */
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(18)), (byte) => byte.toString(16)).join("");

/** A thumb (1 or -1) or stars (1 to 5); the same again says nothing new and is not sent. */
export async function judge(answerId, kind, value) {
  const found = find(answerId);
  if (found?.answer[kind] === value) return;
  await say(answerId, kind, { [kind]: value });
  if (found) found.answer[kind] = value;
}

/** The editor's text as a comment, or as a correction, which may have its question in other words with it; the editor
 * is closed once it is stored. */
export async function write(words, otherWords) {
  const { id, kind, original } = state.editing;
  const wanted = words.trim();
  const others = kind === "correction" ? otherWords.trim() : "";
  const last = find(id)?.answer.corrections.at(-1);
  const reworded = last && others !== (last.other_words ?? "");
  if (!wanted) throw new NotSaved("empty");
  if (kind === "correction" && wanted === original.trim() && !reworded) throw new NotSaved("unchanged");
  const said = { text: wanted, ...(others && { other_words: others }) };
  const stored = await say(id, kind, said);
  const found = find(id);
  if (found) note(found.answer, { ...stored, ...said });
  state.editing = null;
}

/** What was said of an answer. */
function note(answer, said) {
  answer[said.kind] = said.thumb ?? said.rating ?? said.text ?? true;
  if (said.kind === "correction") answer.corrections.push(said);
}

/** Take every correction of an answer back, the last one first: the answer is again what it was. */
export async function withdraw(answer) {
  while (answer.corrections.length) {
    await saved(takeBack(answer.corrections.at(-1).id));
    answer.corrections.pop();
    answer.correction = answer.corrections.at(-1)?.text ?? "";
  }
}

/** Make a blind choice (0 or 1), or leave it (-1): then the answer that was there before stays. */
export async function choose(turn, position) {
  if (position < 0) {
    turn.drafts = [];
    return;
  }
  const drafts = turn.drafts; // a question that is asked meanwhile takes them off the turn
  await say(drafts[position].id, "choice");
  for (const draft of drafts) {
    const { version, sources } = await readAnswer(draft.id);
    Object.assign(draft, { version, sources });
  }
  Object.assign(turn, { drafts, chosen: position, answer: { ...drafts[position] } });
}

/** The conversation of this tab as the store has it, after a reload; nothing where it is gone. */
export async function resume() {
  const id = sessionStorage.getItem(KEPT);
  if (!id) return;
  try {
    state.turns = turnsOf((await readConversation(id)).answers);
    goOnIn(id);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    goOnIn(null);
  }
}

function turnsOf(answers) {
  const turns = [];
  for (const row of answers) {
    const { id, text, version, sources, finish_reason: finish } = row;
    const answer = { ...blank(row.position), id, text, version, sources, finish };
    for (const said of row.feedback) note(answer, said);
    const last = turns.at(-1);
    if (row.draft_id === null && last?.question === row.question && last.answer.finish !== "stop") last.answer = answer;
    else if (row.draft_id === null) turns.push({ ...asked(row.question), answer });
    else if (last) place(last, row.draft_id, answer);
  }
  return turns;
}

/** A draft counts where one of its pair was chosen. */
function place(turn, draftId, answer) {
  if (turn.draftId !== draftId) Object.assign(turn, { draftId, drafts: [], chosen: null });
  turn.drafts[answer.position] = answer;
  if (answer.choice) Object.assign(turn, { chosen: answer.position, answer });
}
