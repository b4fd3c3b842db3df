// Images that are chosen, pasted or dropped go into the composer's file input, and the form is sent.
const form = document.getElementById("composer"), files = document.getElementById("files");
const upload = form?.querySelector(".upload");

function send(list) {
  const images = [...list].filter((file) => file.type.startsWith("image/"));
  if (!images.length) return false;
  const data = new DataTransfer();
  images.forEach((file) => data.items.add(file));
  files.files = data.files;
  form.requestSubmit(upload);
  return true;
}

if (form) {
  upload.hidden = true; // choosing is enough
  form.querySelector(".main").title = "Ctrl+Enter";
  files.addEventListener("change", () => files.files.length && form.requestSubmit(upload));
  document.addEventListener("paste", (event) => send(event.clipboardData.files) && event.preventDefault());
  document.addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length && !event.target.closest("input[type=file]")) event.preventDefault();
    send(event.dataTransfer.files);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(form.querySelector(".main"));
  });
}
