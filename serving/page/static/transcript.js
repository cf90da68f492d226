// The conversation as elements. Questions and answers are set as text, to the character, and Markdown is not rendered
// on purpose: an image or link in an answer would make the browser call out, and what an expert corrects must be what
// was answered.

import { choosing, final, state } from "./conversation.js";
import { current, text } from "./texts.js";

const LETTERS = "AB";
const THUMB = "M2 10h4v11H2zM22 11.5c0-1.1-.9-2-2-2h-5.6l.9-4.2v-.3c0-.4-.2-.8-.4-1.1L13.8 3 7.6 9.2c-.4.4-.6.8-.6 "
  + "1.3V19c0 1.1.9 2 2 2h7.7c.8 0 1.5-.5 1.8-1.2l3.3-7c.1-.2.2-.5.2-.8z";
const SHORT = 160; // characters of a source that are seen before it is opened
const ENDS = { length: "cut_off", cancelled: "stopped", error: "broken_off" };

/** An element with attributes and children; `null` children are left out, strings become text. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") element.addEventListener("click", value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const named = (key, values) => ({ "aria-label": text(key, values), title: text(key, values) });
const button = (kind, on, label, attributes = {}) => h("button", { type: "button", class: kind, on, ...attributes }, label);
const cursor = () => h("span", { class: "fw-cursor", role: "img", ...named("writing") });
const hidden = (key) => h("h3", { class: "fw-hidden" }, text(key));

/** The whole transcript, or the welcome with its examples. `act` has what each button does. */
export function transcript(examples, act) {
  const turns = state.turns.map((turn, number) => turnOf(turn, number, act));
  const body = turns.length ? turns : [welcome(examples, act)];
  const about = { class: "fw-log", role: "log", "aria-label": text("conversation"), lang: current() };
  return h("div", { ...about, "aria-busy": String(state.busy) }, ...body);
}

function welcome(examples, act) {
  const choices = examples.map((example) => button("fw-example", () => act.ask(example), example));
  return h(
    "div", { class: "fw-welcome" },
    h("h2", {}, text("welcome")),
    h("p", {}, text("welcome_hint")),
    choices.length ? h("p", { class: "fw-soft" }, text("examples")) : null,
    h("div", { class: "fw-examples" }, ...choices),
  );
}

function turnOf(turn, number, act) {
  const last = number === state.turns.length - 1;
  const writing = state.busy && last;
  const shown = turn.answer.text || turn.answer.id || turn.answer.finish || writing;
  return h(
    "section", { class: "fw-turn" },
    h("div", { class: "fw-question" }, hidden("you"), h("div", { class: "fw-text" }, turn.question)),
    choosing(turn) ? drafts(turn, writing, act) : shown ? answer(turn, number, writing, last && !state.busy, act) : null,
    turn.error ? problem(turn, number, last && !state.busy, act) : null,
  );
}

function answer(turn, number, writing, mayDraft, act) {
  const said = turn.answer;
  return h(
    "article", { class: "fw-answer" },
    hidden("model"),
    said.correction ? corrected(said, act) : null,
    h("div", { class: "fw-text fw-final" }, final(said), writing ? cursor() : null),
    ...beside(turn),
    sources(said),
    writing ? null : foot(turn, number, mayDraft, act),
  );
}

const corrected = (said, act) => h(
  "p", { class: "fw-corrected" },
  h("span", { class: "fw-tag" }, text("your_correction")), " ",
  button("fw-small", () => act.withdraw(said), text("take_back"), { title: text("take_back_hint") }));

/** What belongs to an answer besides its text: the original, the comment, the draft that was not chosen. */
function beside(turn) {
  const said = turn.answer;
  const fold = (summary, body) => h(
    "details", {}, h("summary", {}, summary), h("div", { class: "fw-text" }, body));
  const comment = () => h(
    "p", { class: "fw-comment" },
    h("strong", {}, `${text("your_comment")}:`), " ", h("span", { class: "fw-text" }, said.comment));
  const other = turn.chosen === null ? null : turn.drafts[1 - turn.chosen];
  return [
    said.correction ? fold(text("original"), said.text) : null,
    said.comment ? comment() : null,
    other ? fold(`${text("other_draft", { letter: LETTERS[1 - turn.chosen] })} · ${version(other)}`, other.text) : null,
  ];
}

/** The passages that an answer was given from, folded; those that it cites come first. */
function sources(said) {
  if (!said.sources?.length) return null;
  const ordered = [...said.sources].sort((one, other) => other.cited - one.cited);
  const summary = h("summary", {}, text("sources", { count: ordered.length }));
  const list = h("details", { class: "fw-sources" }, summary, ...ordered.map(source));
  list.open = Boolean(said.opened); // the transcript is drawn anew with every click
  list.addEventListener("toggle", () => { said.opened = list.open; });
  return list;
}

function source({ number, kind, question, text: passage, source: name, cited }) {
  const letters = [...(question ? `${question}\n${passage}` : passage)];
  const short = letters.length > SHORT ? `${letters.slice(0, SHORT).join("")}…` : null;
  const whole = h("div", { class: "fw-text" }, letters.join(""));
  return h(
    "div", { class: cited ? "fw-source fw-cited" : "fw-source" },
    h("strong", {}, `[${number}]`), " ",
    h("span", { class: "fw-soft" }, kind === "correction" ? text("source_correction") : name), " ",
    cited ? h("span", { class: "fw-tag" }, text("source_cited")) : null,
    short ? h("details", {}, h("summary", { class: "fw-text" }, h("span", {}, short)), whole) : whole,
  );
}

const version = (said) => (said.version === "base" ? text("version_base") : text("version", { version: said.version }));

function foot(turn, number, mayDraft, act) {
  const said = turn.answer;
  const notes = [
    said.version ? version(said) : null,
    turn.chosen === null ? null : text("chosen", { letter: LETTERS[turn.chosen] }),
    ENDS[said.finish] ? text(ENDS[said.finish]) : null,
    said.sources?.length === 0 ? text("no_sources") : null,
  ].filter(Boolean);
  const offersDrafts = mayDraft && turn.chosen === null && !said.correction;
  const hint = { title: text("second_draft_hint") };
  return h(
    "footer", { class: "fw-foot" },
    h("span", { class: "fw-note" }, notes.join(" · ")),
    said.id ? h(
      "div", { class: "fw-judge", role: "group", ...named("judge") },
      h("span", { class: "fw-thumbs" }, thumb(said, 1, "thumb_up", act), thumb(said, -1, "thumb_down", act)),
      h("span", { class: "fw-stars" }, ...[1, 2, 3, 4, 5].map((count) => star(said, count, act))),
      button("fw-small", () => act.edit(said, "correction"), text("correct"), { title: text("correct_hint") }),
      button("fw-small", () => act.edit(said, "comment"), text("comment"), { title: text("comment_hint") }),
      offersDrafts ? button("fw-small", () => act.twice(number), text("second_draft"), hint) : null,
    ) : null,
  );
}

function thumb(said, value, key, act) {
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, size] of [["viewBox", "0 0 24 24"], ["width", "18"], ["height", "18"], ["aria-hidden", "true"]]) {
    icon.setAttribute(name, size);
  }
  if (value < 0) icon.setAttribute("class", "fw-down");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("fill", "currentColor");
  path.setAttribute("d", THUMB);
  icon.append(path);
  const pressed = { "aria-pressed": String(said.thumb === value), ...named(key) };
  return button("fw-icon", () => act.judge(said, "thumb", value), icon, pressed);
}

function star(said, count, act) {
  const lit = count <= said.rating ? "fw-star fw-lit" : "fw-star";
  const pressed = { "aria-pressed": String(said.rating === count), ...named("star", { count }) };
  return button(lit, () => act.judge(said, "rating", count), "★", pressed);
}

/** Two drafts side by side. Nothing in it may tell them apart but the text: no version, no id, no order. */
function drafts(turn, writing, act) {
  const columns = turn.drafts.map((draft, place) => h(
    "article", { class: "fw-draft" },
    h("h3", {}, text("draft", { letter: LETTERS[place] })),
    h("div", { class: "fw-text" }, draft.text, writing && !draft.finish ? cursor() : null),
    writing ? null : button("fw-choose", () => act.choose(turn, place), text("choose", { letter: LETTERS[place] })),
  ));
  return h(
    "div", { class: "fw-choice", role: "group", ...named("which_draft") },
    h("p", {}, h("strong", {}, text("which_draft")), " ", text("blind_hint")),
    h("div", { class: "fw-drafts" }, ...columns),
    writing ? null : button("fw-small", () => act.choose(turn, -1), text("neither")),
  );
}

function problem(turn, number, mayRetry, act) {
  return h(
    "div", { class: "fw-error", role: "alert" },
    h("span", {}, text(turn.error, { reason: turn.reason })),
    mayRetry && !turn.answer.id ? button("fw-small", () => act.again(number), text("try_again")) : null,
  );
}
