"use strict";
// Live parts are replaced as the server sends them; without this script a page is as it was loaded.
(() => {
  const line = document.getElementById("line");
  const busy = document.getElementById("busy");

  // Replace a part; whoever is at a button in it stays there, and what was unfolded stays so.
  const replace = (element, html) => {
    const stops = () => [...element.querySelectorAll("a, button, summary, [tabindex]")];
    const at = element.contains(document.activeElement) ? document.activeElement : null;
    if (at && at.matches("input, select, textarea")) return;
    const place = stops().indexOf(at);
    const open = [...element.querySelectorAll("details[open]")].map((each) => each.id);
    element.innerHTML = html;
    for (const id of open) {
      const again = id && document.getElementById(id);
      if (again) again.open = true;
    }
    if (!at) return;
    const same = stops().find((each) => each.textContent === at.textContent) || stops()[place];
    if (same) same.focus();
  };

  const live = document.body.dataset.live;
  if (live && window.EventSource) {
    const source = new EventSource(live);
    source.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      const element = document.getElementById(part.id);
      if (element) replace(element, part.html);
    });
    source.addEventListener("open", () => { if (line) line.hidden = true; });
    source.addEventListener("error", () => { if (line) line.hidden = false; });
  }

  // Whatever takes longer than a moment is seen to be under way.
  let wait = 0;
  const working = () => { wait = setTimeout(() => { if (busy) busy.hidden = false; }, 500); };
  addEventListener("pageshow", () => { clearTimeout(wait); if (busy) busy.hidden = true; });
  document.addEventListener("submit", (event) => {
    const asked = event.submitter && event.submitter.dataset.ask;
    if (asked && !confirm(asked)) event.preventDefault();
    else working();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    const leaves = link && link.origin === location.origin && !link.hash && !link.download;
    if (leaves && !event.ctrlKey && !event.metaKey && !event.shiftKey) working();
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy);
    navigator.clipboard.writeText(text.textContent.trim()).then(() => {
      button.textContent = "Copied";
    });
  });
})();
