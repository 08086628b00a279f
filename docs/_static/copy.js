/* A button on each block of code that copies what is to be run: no prompts and no output. */
function code(text) {
  const lines = text.split("\n");
  for (const prompt of [/^(>>>|\.\.\.)( |$)/, /^\$ /]) {
    const typed = lines.filter((line) => prompt.test(line));
    if (typed.length) {
      return typed.map((line) => line.replace(prompt, "")).join("\n");
    }
  }
  return text;
}

document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) {
    return;
  }
  for (const pre of document.querySelectorAll("div.highlight > pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code(pre.textContent));
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    pre.parentElement.append(button);
  }
});
