// Sorts tables by a click on a head and filters the rows of long ones. Without it, the page is complete.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => row.cells[column].textContent.trim();
  const number = text => parseFloat(text.replace(/^[<(\s]+|,/g, "")); // of 99.61 % (99.40 to 99.80): the first
  const order = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return x - y || a.localeCompare(b, "en", {numeric: true});
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = {null: "ascending", ascending: "descending", descending: null}[head.getAttribute("aria-sort")];
      heads.forEach(each => each.removeAttribute("aria-sort"));
      const sorted = next ? rows.toSorted((a, b) => order(value(a, column), value(b, column))) : rows;
      body.append(...(next === "descending" ? sorted.toReversed() : sorted));
      if (next) head.setAttribute("aria-sort", next);
    });
  });
  if (rows.length > 8) {
    const label = document.createElement("label"), input = document.createElement("input");
    label.className = "filter";
    input.type = "search";
    label.append("Filter rows ", input);
    table.closest(".scroll").before(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/);
      for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    });
  }
}
