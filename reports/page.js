"use strict";
// Says which tables scroll sideways, and marks the section in view.
(() => {
  const check = (region) => {
    const hint = region.parentElement.querySelector(":scope > .hint");
    if (hint) hint.hidden = region.scrollWidth <= region.clientWidth + 1;
  };
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => check(entry.target)));
  for (const region of document.querySelectorAll(".scroll")) {
    check(region);
    resized.observe(region);
  }
  const links = new Map([...document.querySelectorAll("nav.sticky a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const id of links.keys()) {
    const section = document.getElementById(id);
    if (section) seen.observe(section);
  }
})();
