'use strict';
const $ = id => document.getElementById(id);
// Where the router is nested below another path, the page's own has no slash at its end.
const root = location.pathname.replace(/\/?$/, '/');
document.querySelector('footer a').href = root + 'openapi.json';
const SHOWN = 30, LISTED = 10, NARROW = matchMedia('(max-width: 45rem)');

// An element: make('p', {className: 'soft'}, 'text', other).
const make = (name, properties, ...inside) => {
  const made = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(properties ?? {}))
    if (key.includes('-')) made.setAttribute(key, value);
  made.append(...inside);
  return made;
};
const number = n => n.toLocaleString('en');
const name = entry => entry.title || entry.item;

// ---- requests: of one kind, the last one wins; an older one is given up.
const running = {};
const ask = async (kind, path, body) => {
  running[kind]?.abort();
  const mine = running[kind] = new AbortController();
  let answer, value;
  try {
    answer = await fetch(root + path, {
      signal: mine.signal,
      ...(body && { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    value = await answer.json();
  } catch (error) {
    if (running[kind] !== mine) return undefined;
    throw new Error('The service does not answer. Is it running?', { cause: error });
  }
  if (running[kind] !== mine) return undefined;
  if (!answer.ok) throw new Error(value.error);
  return { value, total: Number(answer.headers.get('x-total-count')) };
};

// ---- errors stay until what failed succeeds or is not wanted any more.
const errors = new Map();
const showErrors = () => {
  const lines = [...errors].map(([kind, { message, again }]) =>
    make('p', {}, message + ' ', make('button', { type: 'button', onclick: () => { errors.delete(kind); showErrors(); again(); } }, 'Try again')));
  $('error').hidden = lines.length === 0;
  $('error').replaceChildren(...lines);
};
const attempt = async (kind, work, again) => {
  try {
    await work();
    errors.delete(kind);
  } catch (error) {
    errors.set(kind, { message: error.message, again: again ?? (() => attempt(kind, work)) });
  }
  showErrors();
};

// ---- the state is the address: a link and the back button restore all of it.
const read = () => {
  const link = new URLSearchParams(location.hash.slice(1));
  const listed = link.has('items') ? link.get('items').split(',').filter(Boolean) : [];
  return {
    user: link.get('user'),
    items: [...listed, ...link.getAll('item')],
    filter: Object.fromEntries([...link].filter(([key]) => key.startsWith('in.')).map(([key, value]) => [key.slice(3), value])),
    known: link.has('known'),
    why: link.get('why'),
    like: link.get('like'),
    people: link.get('people') ?? '',
    words: link.get('words') ?? '',
  };
};
const address = state => {
  const link = new URLSearchParams();
  if (state.user !== null) link.set('user', state.user);
  else if (state.items.some(item => item.includes(','))) state.items.forEach(item => link.append('item', item));
  else if (state.items.length) link.set('items', state.items.join(','));
  for (const [field, value] of Object.entries(state.filter)) link.set('in.' + field, value);
  if (state.known) link.set('known', '1');
  for (const key of ['why', 'like']) if (state[key]) link.set(key, state[key]);
  if (state.people) link.set('people', state.people);
  if (state.words) link.set('words', state.words);
  // Commas as people write them.
  return '#' + String(link).replaceAll('%2C', ',');
};
let state = read();
const go = (change, keep = false) => {
  state = { ...state, ...change };
  history[keep ? 'replaceState' : 'pushState'](null, '', address(state));
  return render();
};
addEventListener('popstate', () => { state = read(); restore(); });

// ---- lists that are one stop of the Tab key; arrows move inside.
const roving = list => {
  const buttons = [...list.querySelectorAll('button')];
  const first = buttons.find(b => b.getAttribute('aria-pressed') === 'true') ?? buttons[0];
  buttons.forEach(b => { b.tabIndex = b === first ? 0 : -1; });
};
const arrows = list => list.addEventListener('keydown', event => {
  const buttons = [...list.querySelectorAll('button')], at = buttons.indexOf(document.activeElement);
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const to = event.key === 'Home' ? 0 : event.key === 'End' ? buttons.length - 1 : at + (steps[event.key] ?? NaN);
  if (at < 0 || !buttons[to]) return;
  event.preventDefault();
  buttons.forEach(b => { b.tabIndex = b === buttons[to] ? 0 : -1; });
  buttons[to].focus();
});
['users', 'found', 'chosen'].forEach(id => arrows($(id)));

// ---- search
const search = (field, kind, path, list, said, what, show) => {
  const run = () => {
    const text = $(field).value;
    return attempt(kind, async () => {
      const answer = await ask(kind, `${path}?limit=${SHOWN}&q=${encodeURIComponent(text)}`);
      if (!answer) return;
      const { value, total } = answer;
      $(list).replaceChildren(...value.map(show));
      mark();
      $(said).textContent =
        value.length === 0 ? `Nothing found for “${text}”.`
          : !text ? '' : total > value.length ? `${number(total)} found, the first ${value.length} shown.` : value.length < SHOWN ? `${value.length} ${what} found.` : `The first ${SHOWN} ${what} are shown.`;
    }, run);
  };
  $(field).addEventListener('input', () => { state = { ...state, [kind]: $(field).value }; history.replaceState(null, '', address(state)); run(); });
  $(field).addEventListener('keydown', event => {
    const first = $(list).querySelector('button');
    if (event.key === 'Enter' && first) first.click();
    if (event.key === 'ArrowDown' && first) { event.preventDefault(); first.focus(); }
  });
  return run;
};
const choice = (key, pressed, onclick, ...inside) => make('li', {}, make('button', { type: 'button', 'data-key': key, 'aria-pressed': String(pressed), onclick }, ...inside));
const findPeople = search('user', 'people', 'users', 'users', 'user-said', 'users',
  user => choice(user, false, () => choose({ user, items: [] }), user));
const findItems = search('item', 'words', 'items', 'found', 'item-said', 'items',
  entry => choice(entry.item, false, () => toggle(entry), name(entry), make('small', {}, entry.title ? ` ${entry.item}` : '')));

// ---- choosing
const titles = new Map();
const choose = change => go({ ...change, why: null, like: null }).then(inSight);
const toggle = entry => {
  titles.set(entry.item, name(entry));
  const has = state.user === null && state.items.includes(entry.item);
  const items = has ? state.items.filter(item => item !== entry.item) : [...(state.user === null ? state.items : []), entry.item];
  return choose({ user: null, items });
};
const inSight = () => {
  if (NARROW.matches && (state.user !== null || state.items.length)) {
    $('result').scrollIntoView({ block: 'start' });
  }
};
const mark = () => {
  for (const [list, chosen] of [['users', key => key === state.user], ['found', key => state.user === null && state.items.includes(key)]]) {
    $(list).querySelectorAll('button').forEach(b => b.setAttribute('aria-pressed', String(chosen(b.dataset.key))));
    roving($(list));
  }
};
const chips = () => {
  const items = state.user === null ? state.items : [];
  const focused = [...$('chosen').querySelectorAll('button')].indexOf(document.activeElement);
  $('chosen').replaceChildren(...items.map(item => make('li', {}, make('button', {
    type: 'button', onclick: () => toggle({ item, title: titles.get(item) }), 'aria-label': `Remove ${titles.get(item) ?? item}`,
  }, `${titles.get(item) ?? item} ✕`))));
  roving($('chosen'));
  if (focused >= 0) ([...$('chosen').querySelectorAll('button')][Math.min(focused, items.length - 1)] ?? $('item')).focus();
};

// ---- the answer
// How likely an item is beside the first one of its list.
const beside = (score, first) => `${Math.max(1, Math.round(100 * Math.exp(score - first)))} %`;
const details = entry => {
  const rest = entry.text.startsWith(entry.title) ? entry.text.slice(entry.title.length) : entry.text;
  const more = rest.replace(/^[.\s]+/, '');
  const tags = Object.values(entry.fields ?? {}).flat().filter(v => v && v.length <= 40).slice(0, 6);
  return [
    make('small', {}, entry.title ? entry.item : ''),
    ...(tags.length ? [make('div', {}, ...tags.map(tag => make('span', { className: 'tag' }, tag)))] : []),
    ...(more && !tags.includes(more) ? [make('div', { className: 'text soft' }, more)] : []),
  ];
};
const card = (entry, first) => {
  titles.set(entry.item, name(entry));
  const more = (kind, text, label) => make('button', {
    type: 'button', 'aria-expanded': String(state[kind] === entry.item), 'aria-label': `${label} ${name(entry)}`, 'data-more': kind,
    onclick: () => go({ why: null, like: null, [kind]: state[kind] === entry.item ? null : entry.item }),
  }, text);
  return make('li', { className: 'card', 'data-item': entry.item },
    make('div', { className: 'title' }, name(entry), ' ', make('span', { className: 'soft', title: `score ${entry.score}` }, beside(entry.score, first))),
    ...details(entry),
    make('div', { className: 'more' }, ...(model?.explains ? [more('why', 'Why?', 'Why')] : []), more('like', 'Similar', 'Similar to')),
    make('div', { className: 'inside', hidden: true }));
};
const owned = entry => {
  titles.set(entry.item, name(entry));
  return make('li', { className: 'card' }, make('div', { className: 'title' }, name(entry)),
    ...(entry.title || entry.text ? details(entry) : [make('small', {}, 'not in the catalogue')]));
};
const person = () => state.user !== null ? { user: state.user } : state.items.length ? { items: state.items } : null;

let model, shown = '';
const facts = () => attempt('model', async () => {
  const answer = await ask('model', 'model');
  if (!answer) return;
  model = answer.value;
  $('name').textContent = `Recommendations by “${model.name}”`;
  document.title = `Recommendations by ${model.name}`;
  const day = new Date(model.date).toLocaleDateString('en', { day: 'numeric', month: 'long', year: 'numeric' });
  const written = model.writes.interactions ? `; ${number(model.writes.interactions)} interactions came since` : '';
  $('facts').textContent = `${number(model.items)} items, ${number(model.users)} people; fitted on ${day}${written}.`;
  $('facts').title = `SHA-256 ${model.hash}`;
}, () => facts().then(() => render(true)));

const filters = () => {
  const fields = Object.entries(model?.fields ?? {}).filter(([, values]) => values.length > 1 && values.some(v => v.items > 1)).slice(0, 3);
  const select = ([field, values]) => {
    const id = 'filter-' + field;
    const made = make('select', { id, onchange: () => {
      const filter = { ...state.filter };
      if (made.value) filter[field] = made.value; else delete filter[field];
      go({ filter, why: null, like: null });
    } }, make('option', { value: '' }, 'all'), ...values.map(v => make('option', { value: v.value }, `${v.value} (${v.items})`)));
    made.value = state.filter[field] ?? '';
    return make('div', {}, make('label', { htmlFor: id }, field === 'genres' ? 'category' : field), made);
  };
  const known = make('input', { type: 'checkbox', id: 'known', checked: state.known, onchange: () => go({ known: known.checked, why: null, like: null }) });
  const focused = document.activeElement?.id;
  $('filters').replaceChildren(...fields.map(select), make('label', { className: 'check', htmlFor: 'known' }, known, 'also what they have'));
  if (focused && $('filters').querySelector('#' + CSS.escape(focused))) $(focused).focus();
};

const render = async (again = false) => {
  chips();
  mark();
  filters();
  const who = person();
  if (!who) {
    running.answer?.abort();
    delete running.answer;
    errors.delete('answer');
    errors.delete('inside');
    showErrors();
    shown = '';
    $('answer').hidden = true;
    $('for').textContent = 'No user chosen';
    $('status').textContent = 'Choose a user or some items.';
    return;
  }
  const request = { ...who, k: LISTED, filter: state.filter, allow_known: state.known };
  const key = JSON.stringify(request);
  if (key !== shown || again) {
    $('for').textContent = state.user !== null ? `For ${state.user}` : `For anybody with ${state.items.length === 1 ? titles.get(state.items[0]) ?? state.items[0] : `${state.items.length} items`}`;
    $('status').textContent = 'Loading …';
    $('answer').setAttribute('aria-busy', 'true');
    let done = false;
    await attempt('answer', async () => {
      try {
        const answer = await ask('answer', 'recommend', request);
        if (!answer) return;
        const { history, recommendations, model: loaded } = answer.value;
        shown = key;
        if (model && loaded !== model.model) await facts();
        $('history').replaceChildren(...history.map(owned));
        $('has').textContent = `Has (${number(history.length)})`;
        $('best').replaceChildren(...recommendations.map(entry => card(entry, recommendations[0].score)));
        $('answer').hidden = false;
        chips();
        $('status').textContent = recommendations.length ? `${recommendations.length} recommendations.` : 'No item matches.';
        done = true;
      } catch (error) {
        // What was shown is somebody else's.
        shown = '';
        $('answer').hidden = true;
        $('status').textContent = 'No answer.';
        throw error;
      }
    }, () => render(true));
    $('answer').removeAttribute('aria-busy');
    if (!done) return;
  }
  await inside();
};

// ---- reasons and similar items, inside a card
const row = (text, part, most) => {
  const bar = make('div', { className: part < 0 ? 'part less' : 'part' });
  bar.style.width = `${Math.round(100 * Math.abs(part) / (most || 1))}%`;
  return make('li', {}, make('span', {}, text), bar, make('span', { className: 'number' }, `${part < 0 ? '−' : '+'}${Math.abs(part).toFixed(2)}`));
};
const inside = async () => {
  const kind = state.why ? 'why' : state.like ? 'like' : null, item = state.why ?? state.like;
  for (const card of $('best').children) {
    card.querySelectorAll('[data-more]').forEach(b => b.setAttribute('aria-expanded', String(card.dataset.item === item && b.dataset.more === kind)));
    if (card.dataset.item !== item) card.querySelector('.inside').hidden = true;
  }
  const into = [...$('best').children].find(card => card.dataset.item === item)?.querySelector('.inside');
  if (!kind || !into) { errors.delete('inside'); showErrors(); return; }
  await attempt('inside', async () => {
    const answer = kind === 'why' ? await ask('inside', 'explain', { ...person(), item, k: 5 }) : await ask('inside', 'similar', { item, k: 5 });
    if (!answer) return;
    const value = answer.value;
    if (kind === 'why') {
      const parts = value.items.filter(of => of.part !== 0).map(of => [of.title || of.item, of.part]);
      if (Math.abs(value.others) >= .005) parts.push(['other items', value.others]);
      parts.push(['its popularity', value.popularity]);
      const most = Math.max(...parts.map(([, part]) => Math.abs(part)));
      into.replaceChildren(make('p', {}, 'The largest contributions to its score:'), make('ul', {}, ...parts.map(([text, part]) => row(text, part, most))),
        make('p', { className: 'soft' }, `Total ${value.score.toFixed(2)}.${value.prompt_path_adds ? ' The language model also contributes.' : ''}`));
    } else {
      into.replaceChildren(make('p', {}, value.by === 'text' ? 'Items with similar texts:' : 'Items with common users:'),
        value.similar.length ? make('ul', {}, ...value.similar.map(entry => row(name(entry), entry.score, 1))) : make('p', {}, 'There are none.'),
        make('button', { type: 'button', onclick: () => toggle({ item, title: titles.get(item) }) }, 'Recommend for this item'));
    }
    into.hidden = false;
    $('status').textContent = kind === 'why' ? `Reasons for ${titles.get(item)} are shown.` : `Items like ${titles.get(item)} are shown.`;
  }, inside);
};

// ---- start
const restore = async () => {
  errors.clear();
  showErrors();
  [['user', 'people', findPeople], ['item', 'words', findItems]].forEach(([field, key, find]) => {
    if ($(field).value !== state[key]) { $(field).value = state[key]; find(); }
  });
  await render();
  inSight();
};
$('user').value = state.people;
$('item').value = state.words;
findPeople();
findItems();
facts().then(() => render(true)).then(inSight);
