// Light, dark, or as the system says. No module: it runs before the page is drawn, so that nothing flashes.

(() => {
  const PLACE = "sknet-theme";
  const root = document.documentElement;

  function kept() {
    try {
      return localStorage.getItem(PLACE);
    } catch {
      return null; // storage is switched off
    }
  }

  function keep(choice) {
    try {
      if (choice === "auto") localStorage.removeItem(PLACE);
      else localStorage.setItem(PLACE, choice);
    } catch {
      // storage is switched off: it holds until the page is left
    }
  }

  function apply(choice) {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
  }

  apply(kept());
  document.addEventListener("DOMContentLoaded", () => {
    for (const input of document.querySelectorAll("input[name=theme]")) {
      input.checked = input.value === (root.dataset.theme ?? "auto");
      input.addEventListener("change", () => {
        keep(input.value);
        apply(input.value);
      });
    }
  });
})();
