() => {
  const find = (selector) => document.querySelector(selector);
  const press = (selector) => { const button = find(selector); if (button && !button.disabled) button.click(); };
  document.addEventListener("keydown", (event) => {
    const inEditor = event.target.closest && event.target.closest("#fw-editor");
    const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing;
    if (enter && event.target.closest("#fw-editor textarea")) { event.preventDefault(); event.stopPropagation(); press("#fw-save"); }
    else if (enter && event.target.closest("#fw-question")) { event.preventDefault(); event.stopPropagation(); press("#fw-send"); }
    else if (event.key === "Escape" && inEditor) { event.preventDefault(); press("#fw-cancel"); }
    else if (event.altKey && !event.ctrlKey && (event.code === "KeyC" || event.code === "KeyK")) {
      const what = event.code === "KeyC" ? "correction" : "comment";
      const buttons = document.querySelectorAll(`[data-event=edit][data-what=${what}]`);
      if (buttons.length) { event.preventDefault(); buttons[buttons.length - 1].click(); }
    }
  }, true);
}
