// The page: what stands where, and what a click or a key does.

import { readSession, Refused } from "./api.js";
import * as conversation from "./conversation.js";
import { NotSaved, state } from "./conversation.js";
import { current, languages, speak, text } from "./texts.js";
import { transcript } from "./transcript.js";

const TOAST_MS = 8000;
const find = (selector) => document.querySelector(selector);
const question = find("#fw-question textarea");
const words = find("#fw-words textarea");
const otherWords = find("#fw-other-words");
const place = find("#fw-conversation");
const status = find("p[role=status]");
const toast = find("#fw-toast");
let session = { title: "", examples: [] };
let drawing = false;

// Drawing

/** Draw what there is, at most once a frame; what was focused stays so, and a reader at the end stays there. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
    const buttons = () => [...place.querySelectorAll("button")];
    const focused = buttons().indexOf(document.activeElement);
    place.replaceChildren(transcript(session.examples, act));
    buttons()[focused]?.focus();
    find("#fw-send").hidden = state.busy;
    find("#fw-stop").hidden = !state.busy;
    find("#fw-composer").hidden = state.editing !== null;
    find("#fw-editor").hidden = state.editing === null;
    if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
  });
}

function word() {
  document.documentElement.lang = current();
  document.title = session.title;
  find("#fw-heading h1").textContent = session.title;
  find("#fw-heading p").textContent = text("footer");
  const choices = Object.entries(languages).map(([code, name]) => {
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "language" });
    input.checked = code === current();
    input.addEventListener("change", () => { speak(code); word(); draw(); find("#fw-language :checked").focus(); });
    const choice = document.createElement("label");
    choice.lang = code;
    choice.append(input, name);
    return choice;
  });
  find("#fw-language").replaceChildren(...choices);
  find("#fw-language").setAttribute("aria-label", text("language"));
  question.setAttribute("aria-label", text("question"));
  question.placeholder = text("question_placeholder");
  for (const [selector, key] of Object.entries({
    "#fw-new": "new_conversation", "#fw-send": "send", "#fw-stop": "stop", "#fw-cancel": "cancel",
    "#fw-other label": "other_words_label", "#fw-other-hint": "other_words_hint" })) {
    find(selector).textContent = text(key);
  }
  const kind = state.editing?.kind ?? "correction";
  find("#fw-words label").textContent = text(kind === "correction" ? "correction_label" : "comment_label");
  find("#fw-other").hidden = kind !== "correction";
  find("#fw-save").textContent = text(kind === "correction" ? "save_correction" : "save_comment");
}

function warn(key, reason) {
  toast.textContent = text(key, { reason });
  toast.hidden = false;
  clearTimeout(warn.timer);
  warn.timer = setTimeout(() => { toast.hidden = true; }, TOAST_MS);
}

// Doing

/** Whether what was said is stored; what is not is told at once. */
async function said(work) {
  status.textContent = "";
  toast.hidden = true;
  try {
    await work;
  } catch (error) {
    if (!(error instanceof NotSaved)) throw error;
    warn(error.key, error.reason);
    return false;
  }
  status.textContent = text("saved");
  return true;
}

const act = {
  async ask(asked) {
    if (!asked.trim() || state.busy) return;
    status.textContent = "";
    await conversation.ask(asked.trim(), draw);
    question.focus();
  },
  async again(number) {
    if (!state.busy) await conversation.again(number, draw);
  },
  async twice(number) {
    if (!state.busy) await conversation.twice(number, draw);
  },
  async judge(answer, kind, value) {
    await said(conversation.judge(answer.id, kind, value));
    draw();
  },
  async withdraw(answer) {
    await said(conversation.withdraw(answer));
    draw();
  },
  async choose(turn, position) {
    if (!state.busy) await said(conversation.choose(turn, position));
    draw();
  },
  /** The editor opens in the place of the question box, filled with what is there. */
  edit(answer, kind) {
    if (state.busy) return;
    state.editing = { id: answer.id, kind, original: conversation.final(answer) };
    words.value = kind === "correction" ? state.editing.original : answer.comment;
    otherWords.value = answer.corrections.at(-1)?.other_words ?? "";
    word();
    draw();
    setTimeout(() => words.focus(), 50);
  },
  async save() {
    if (await said(conversation.write(words.value, otherWords.value))) closeEditor();
  },
};

function closeEditor() {
  state.editing = null;
  draw();
  setTimeout(() => question.focus(), 50);
}

function fit() {
  question.rows = Math.min(8, question.value.split("\n").length);
}

// Wiring

find("#fw-composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = question.value;
  if (!asked.trim() || state.busy) return;
  question.value = "";
  fit();
  act.ask(asked);
});
find("#fw-editor").addEventListener("submit", (event) => {
  event.preventDefault();
  act.save();
});
find("#fw-cancel").addEventListener("click", closeEditor);
find("#fw-stop").addEventListener("click", () => state.stopping?.abort());
find("#fw-new").addEventListener("click", () => {
  conversation.begin();
  question.value = "";
  closeEditor();
});
question.addEventListener("input", fit);
document.addEventListener("keydown", (event) => {
  const enter = event.key === "Enter" && !event.isComposing;
  const command = event.ctrlKey || event.metaKey;
  const letter = { KeyC: "correction", KeyK: "comment" }[event.code];
  if (enter && event.target === question && !event.shiftKey) find("#fw-composer").requestSubmit();
  else if (enter && [words, otherWords].includes(event.target) && command) find("#fw-editor").requestSubmit();
  else if (event.key === "Escape" && state.editing) closeEditor();
  else if (event.altKey && !event.ctrlKey && letter && !state.editing) {
    const answered = state.turns.map((turn) => turn.answer).filter((answer) => answer.id);
    if (!answered.length) return;
    act.edit(answered.at(-1), letter);
  } else return;
  event.preventDefault();
});

// Beginning

try {
  session = await readSession();
  state.domain = session.domain;
  await conversation.resume();
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  warn(...conversation.explain(error));
}
word();
draw();
question.focus();
