"use strict";
// Live parts are replaced as the server sends them; without this script a page is as it was loaded.
(() => {
  const live = document.body.dataset.live;
  const line = document.getElementById("line");
  if (live && window.EventSource) {
    const source = new EventSource(live);
    source.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      const element = document.getElementById(part.id);
      if (!element || element.contains(document.activeElement)) return;
      const open = [...element.querySelectorAll("details[open]")].map((each) => each.id);
      element.innerHTML = part.html;
      for (const id of open) {
        const again = id && document.getElementById(id);
        if (again) again.open = true;
      }
    });
    source.addEventListener("open", () => { if (line) line.hidden = true; });
    source.addEventListener("error", () => { if (line) line.hidden = false; });
  }
  document.addEventListener("submit", (event) => {
    const asked = event.submitter && event.submitter.dataset.ask;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy);
    navigator.clipboard.writeText(text.textContent.trim()).then(() => {
      button.textContent = "Copied";
    });
  });
})();
