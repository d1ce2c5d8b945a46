// What holds a worker that drains, as a row under that worker's.
function holder({ client, protocol, server, requests, method, path, upstream, age, sent, idle_since }, now) {
    const asks = method ? ` ${method} ${path ?? ""}` : requests === 0 ? " between requests" : "";
    const more = requests > 1 ? ` and ${many(requests - 1, "request")} more` : "";
    const where = `${server ? ` on ${server}` : ""}${upstream ? ` from ${upstream}` : ""}`;
    // Many a client pauses for a while.
    const still = idle_since === null ? 0 : now - idle_since, idle = still < 5 ? "" : `, idle for ${span(still)}`;
    return `${protocol}${asks}${more}${where}, to ${client}: open for ${span(age)}, ${bytes(sent)} sent${idle}`;
}
function bytes(number) {
    const [value, unit] = number < 1e3 ? [number, "B"] : number < 1e6 ? [number / 1e3, "kB"] :
        number < 1e9 ? [number / 1e6, "MB"] : [number / 1e9, "GB"];
    return `${number < 1e3 ? value : value.toFixed(1)}\u00a0${unit}`;
}
// Keeps the row of one worker, whose own is the last before it; returns the last of both.
function holders(worker, entry, body, now) {
    const by = worker.held_by;
    if (!by?.connections.length) {
        entry.holders?.remove();
        delete entry.holders;
        return entry.tr;
    }
    if (!entry.holders) {
        const cell = make("td", "", make("ul", "holders"));
        cell.colSpan = entry.cells.length;
        entry.holders = make("tr", "", cell);
    }
    const list = entry.holders.querySelector("ul"), more = by.total - by.connections.length;
    const lines = by.connections.map((held) => holder(held, now));
    if (more > 0) lines.push(`and ${many(more, "younger connection")}`);
    while (list.children.length > lines.length) list.lastChild.remove();
    while (list.children.length < lines.length) list.append(make("li"));
    lines.forEach((line, index) => set(list.children[index], line));
    return place(body, entry.holders, entry.tr);
}
