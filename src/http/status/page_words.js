// The first part of the page's script: how it puts into words what a snapshot and the events say. Nothing
// here touches the document.
"use strict";
// For how many seconds a configuration may be read, and workers may start, before that is worth a warning.
const LOADS = 10, STARTS = 30;

const many = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const sum = (list, value) => list.reduce((total, item) => total + value(item), 0);
const all = (generations, state) => sum(generations, (g) => g.workers[state]);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function span(seconds) {
    const s = Math.max(0, seconds), round = (number) => number.toFixed(number < 9.95 ? 1 : 0);
    const [number, unit] = s < 0.1 ? [String(Math.round(s * 1000)), "ms"] : s < 59.5 ? [round(s), "s"] :
        s < 3570 ? [round(s / 60), "min"] : s < 86000 ? [round(s / 3600), "h"] : [round(s / 86400), "d"];
    return `${number}\u00a0${unit}`;
}
function clock(seconds) {
    const date = new Date(seconds * 1000), two = (number) => String(number).padStart(2, "0");
    const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
    const day = date.toDateString() === new Date().toDateString() ? "" :
        `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `;
    return day + time;
}

// How many workers of a generation are yet to come. Those that found no place in the zone have come.
function missing({ expected, workers }, { uncounted }) {
    return Math.max(0, expected - workers.running - workers.hung - uncounted);
}
// Whether a reload is under way: its configuration is read, or its workers start.
function reloading({ node, generations: [current], zone }) {
    const starts = current?.state === "starting" && missing(current, zone) > 0;
    return node.loading_since !== null || node.reloads.last === "succeeded" && starts;
}

// What there is to say, the most serious first.
function judge({ node, lock, generations, losses, zone }, events, now) {
    const found = [], say = (level, kind, text, more) => found.push({ level, kind, text, more });
    const [current] = generations, { reloads } = node;
    const [hung, stuck, draining] = ["hung", "stuck", "draining"].map((state) => all(generations, state));
    if (node.master_lost) {
        say("bad", "master", "Master lost",
            `process ${node.master} is gone; the workers serve on, but none is replaced and no reload is possible`);
    }
    if (hung) {
        say("bad", "hung", `${many(hung, "worker")} hung`,
            "no heartbeat in time; still a process, not counted as running");
    }
    if (!current) {
        say("warn", "empty", "No worker is known", "the error log says why, as when the zone is full");
    } else if (current.state === "retired") {
        say("busy", "stopping", "Stopping", "nginx is to end");
    } else if (current.state === "starting" && missing(current, zone)) {
        const { generation, workers, expected, started } = current;
        const text = `generation ${generation} has ${workers.running} of ${many(expected, "worker")}`;
        if (now - started > STARTS) say("warn", "slow", "Workers are slow to start", `${text} after ${span(now - started)}`);
        else say("busy", "starting", reloads.last ? "Reloading" : "Starting", text);
    } else if (!current.workers.running && !zone.uncounted) {
        say("bad", "nobody", "No worker runs", `generation ${current.generation} should have ${current.expected}`);
    } else if (missing(current, zone)) {
        say("warn", "missing", `${many(missing(current, zone), "worker")} missing`,
            `of ${current.expected} of generation ${current.generation}`);
    }
    if (zone.uncounted) {
        say("warn", "uncounted", `${many(zone.uncounted, "worker")} not counted`,
            "the zone is full: they serve, but nobody is told of them until there is room");
    }
    const call = lock.callback;
    if (call && call.running >= 1) {
        say("warn", "callback", `A callback runs for ${span(call.running)}`,
            `number ${call.number} of ${call.event} for ${call.id}, in process ${lock.holder}; ` +
            "nothing starts or ends meanwhile");
    }
    if (reloads.last === "failed") {
        say("warn", "failed", "Last reload failed",
            `${span(now - reloads.failed_at)} ago; generation ${node.generation} stays: ${reloads.error ?? "the error log says why"}`);
    }
    if (stuck) say("warn", "stuck", `${many(stuck, "worker")} stuck`, "draining for longer than draining_warn");
    if (losses.recent) {
        // The number is the server's: here are only the newest events.
        const last = events.reduce((a, b) => b.event === "worker_lost" && !(a?.seq > b.seq) ? b : a, null);
        // Of a node where much happens less than the whole time is remembered.
        const time = node.time - losses.since;
        say("bad", "lost", `${many(losses.recent, "worker")} died in the last ${time > 299 ? "5 minutes" : span(time)}`,
            last ? `${last.id}: ${last.reason}, ${span(now - last.time)} ago` : "the error log says which");
    }
    for (const kind of ["workers", "generations"]) {
        const { used, total } = zone[kind];
        if (used >= total * 0.9) say("warn", "zone", "Zone nearly full", `${used} of ${total} ${kind}`);
    }
    if (node.loading_since !== null) {
        const time = now - node.loading_since, text = `the master has been reading the configuration for ${span(time)}`;
        if (time > LOADS) say("warn", "loading", "Reload takes long", text);
        else say("busy", "loading", "Reloading", text);
    }
    if (draining) {
        say("busy", "draining", "Draining",
            `${many(draining, "old worker")} still ${draining === 1 ? "serves" : "serve"} open connections`);
    }
    const rank = ["bad", "warn", "busy"];
    return found.sort((a, b) => rank.indexOf(a.level) - rank.indexOf(b.level));
}

const EVENT = {
    worker_lost: "bad", worker_hung: "bad", master_lost: "bad", reload_failed: "bad", worker_stuck: "warn",
    master_ready: "ok", worker_recovered: "ok", worker_draining: "busy",
};

// What happened, in a few words.
function sentence({ event, generation, worker, pid, reason, core, connections, duration, error }) {
    const after = duration === null ? "" : ` after ${span(duration)}`;
    const open = connections === null ? "" : ` with ${many(connections, "connection")}`;
    switch (event) {
    case "master_start": return `generation ${generation} is loaded${after}`;
    case "master_ready": return `generation ${generation} is complete${after}`;
    case "master_exit": return `generation ${generation} is over`;
    case "master_lost": return "the master died, its workers live on";
    case "reload_failed": return `a reload failed${after}, generation ${generation} stays${error ? `: ${error}` : ""}`;
    case "worker_start": return `worker ${worker} started`;
    case "worker_exit": return `worker ${worker} ended${duration === null ? "" : `, drained ${span(duration)}`}`;
    case "worker_draining": return `worker ${worker} drains${open}`;
    case "worker_stuck": return `worker ${worker} still drains${after}${open}`;
    case "worker_lost": return `worker ${worker} died: ${reason}${core ? ", dumped core" : ""}`;
    case "worker_hung": return `worker ${worker} missed its heartbeat`;
    case "worker_recovered": return `worker ${worker} beats again`;
    default: return `process ${pid}`;
    }
}
