// The page's words. texts.json has every one in every language; the sign-in page reads the same file.

const table = await (await fetch("/page/texts.json")).json();
const REMEMBERED = "flywheel-language";

export const languages = table.languages;
let language = localStorage.getItem(REMEMBERED);
if (!(language in languages)) {
  const wanted = navigator.languages.map((name) => name.toLowerCase().split("-")[0]);
  language = wanted.find((name) => name in languages) ?? "en";
}

export const current = () => language;

/** Speak another language from now on, and the next time too. */
export function speak(chosen) {
  language = chosen;
  localStorage.setItem(REMEMBERED, chosen);
}

/** The text of a key, with values filled in for {names}. */
export function text(key, values = {}) {
  return table.texts[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
