"use strict";
// Sorts a table by the column whose heading is chosen; once more turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, place) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[place];
        if (!("value" in cell.dataset)) return cell.textContent.replace(/^[★☆]\s*/, "");
        return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      };
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
      const rows = [...body.rows].sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        if (a === null || b === null) return (a === null) - (b === null); // what has no value comes last
        return descending ? compare(b, a) : compare(a, b);
      });
      body.append(...rows);
    });
  });
}
// Shows the rows that hold every word of the filter.
for (const form of document.querySelectorAll("form.rows")) {
  const rows = [...form.parentElement.querySelectorAll("tbody tr")];
  const status = form.querySelector("[role=status]");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const refresh = () => {
    const words = form.elements.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, place) => { row.hidden = !words.every((word) => texts[place].includes(word)); });
    status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  refresh();
}
