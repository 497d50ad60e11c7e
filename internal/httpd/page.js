"use strict";
(() => {
  const main = document.querySelector("main");
  const live = document.getElementById("live");
  const parser = new DOMParser();

  // morph makes one element like another. What is alike stays: a selection, the focus.
  const morph = (from, to) => {
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name)) from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    const a = [...from.childNodes], b = [...to.childNodes];
    if (a.length !== b.length || a.some((n, i) => n.nodeName !== b[i].nodeName)) {
      from.replaceChildren(...b);
      return;
    }
    a.forEach((n, i) => {
      if (n.nodeType === Node.ELEMENT_NODE) morph(n, b[i]);
      else if (n.data !== b[i].data) n.data = b[i].data;
    });
  };
  const say = (text) => { if (live.textContent !== text) live.textContent = text; };

  const events = new EventSource("events");
  events.onmessage = (e) => {
    const next = document.createElement("main");
    next.append(...parser.parseFromString(e.data, "text/html").body.childNodes);
    morph(main, next);
    say("Live, every two seconds. This page does not change anything.");
  };
  events.onerror = () => {
    const at = new Date().toLocaleTimeString();
    say(events.readyState === EventSource.CLOSED
      ? `Not live since ${at}: the host does not send updates. Reload the page.`
      : `No connection since ${at}: these figures are old. Trying again.`);
  };
})();
