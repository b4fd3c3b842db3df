// Keys answer one question after the other; the third answer saves. Without this script the form does the same.
const form = document.getElementById("votes"), groups = [...form.querySelectorAll("fieldset")];
const keys = { 1: "left", ArrowLeft: "left", 2: "tie", ArrowDown: "tie", 3: "right", ArrowRight: "right" };
const focused = () => groups.find((group) => group.querySelector(":focus-visible"));
const open = () => groups.find((group) => !group.querySelector(":checked"));
let sent = false;

function show() {
  for (const group of groups) group.classList.toggle("current", group === open());
}

function send(button, target = form) {
  if (sent) return;
  sent = true;
  target.requestSubmit(button);
}

form.addEventListener("change", show);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const answer = keys[event.key], key = event.key.toLowerCase();
  if (answer) {
    const group = (event.key.startsWith("Arrow") && focused()) || open() || groups.at(-1);
    group.querySelector(`[value=${answer}]`).checked = true;
    show();
    if (!open()) send(form.querySelector("button[value=vote]"));
  } else if (key === "s") {
    send(form.querySelector("button[value=skip]"));
  } else if (key === "u" && document.querySelector("[form=undo]")) {
    send(undefined, document.getElementById("undo"));
  } else return;
  event.preventDefault();
});
window.addEventListener("pageshow", () => { sent = false; show(); });
