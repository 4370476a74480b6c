// Runs before the first paint, so that a chosen theme does not flash. No choice: the system's.
(function () {
  try {
    var chosen = localStorage.getItem("nanochat.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage may be forbidden; the system's theme is fine
  }
})();
