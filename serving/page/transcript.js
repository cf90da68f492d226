// Every button of the transcript says what it means in its data; a finished answer is found through its article.
const send = (button) => {
  const article = button.closest("[data-answer]");
  const final = article && article.querySelector(".fw-final");
  const detail = {
    what: button.dataset.what || "", value: button.dataset.value || "", turn: button.dataset.turn || "",
    answer: article ? article.dataset.answer : "", text: final ? final.textContent : "",
  };
  if (button.dataset.event === "judge") trigger("judge", detail);
  if (button.dataset.event === "edit") trigger("edit", detail);
  if (button.dataset.event === "choose") trigger("choose", detail);
  if (button.dataset.event === "ask") trigger("ask", detail);
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-event]");
  if (button) send(button);
});
