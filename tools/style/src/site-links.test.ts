/** Links that lead somewhere are passed over, and each kind that does not is named. */
import { expect, it } from 'vitest';
import { brokenLinks } from './site-links.js';

const exists = (path: string): boolean => path === 'assets/style.css';

it('finds missing pages, places and files, and nothing else', () => {
  const pages = new Map([
    [
      'index.html',
      '<link rel="stylesheet" href="assets/style.css?v=1"><a href="a/b.html#two">ok</a>' +
        '<a href="#here" id="here">ok</a><a class="x" href="https://example.org/gone">ok</a>' +
        '<a href="a/c.html">1</a><a href="a/b.html#three">2</a><img src="no.png">',
    ],
    ['a/b.html', '<h2 id="two"></h2><a href="../index.html#here">ok</a><a href="#gone">4</a>'],
  ]);
  expect(brokenLinks(pages, exists)).toEqual([
    'index.html: no page at a/c.html',
    'index.html: no such place: a/b.html#three',
    'index.html: no page at no.png',
    'a/b.html: no such place: #gone',
  ]);
});
