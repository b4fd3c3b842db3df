// Two images on top of each other with a slider between them; without this script they stand side by side.
for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input[type=range]");
  const image = box.querySelector("img");
  const show = () => box.style.setProperty("--at", `${range.value}%`);
  box.style.setProperty("--ratio", `${image.getAttribute("width")} / ${image.getAttribute("height")}`);
  box.classList.add("sliding");
  range.addEventListener("input", show);
  show();
  const follow = (event) => {
    const { left, width } = image.getBoundingClientRect();
    range.value = Math.round(100 * (event.clientX - left) / width);
    show();
  };
  for (const each of box.querySelectorAll("img")) {
    each.draggable = false;
    each.addEventListener("pointerdown", (event) => { each.setPointerCapture(event.pointerId); follow(event); });
    each.addEventListener("pointermove", (event) => event.buttons && follow(event));
  }
}
