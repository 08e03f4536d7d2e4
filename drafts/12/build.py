"""Put the chapter together: k.py (jobs, as run) and the text and cells around."""
s = open('k.py').read()
s = s.replace('tags=["tricks", "depth"]','tags=["tricks", "depth", "depth_controls"]').replace('"imports", "tricks", "depth"]','"imports", "tricks", "depth", "depth_controls"]').replace('"hide-input", "tricks", "depth"]','"hide-input", "tricks", "depth", "depth_controls"]')
def between(a, b=None):
    i = s.index(a); return s[i:s.index(b, i + 1)] if b else s[i:]
FOLD = 'cellView="form" jupyter={"source_hidden": true} '
def md(t): return '# %% [markdown]\n' + '\n'.join(('# ' + l).rstrip() for l in t.strip().split('\n')) + '\n\n\n'
def code(t, tags='', fold=False, alt=None):
    tags = [x for x in (['hide-input'] if fold else []) + ([tags] if isinstance(tags, str) and tags else list(tags) if not isinstance(tags, str) else [])]
    head = '# %%' + (' ' + FOLD.strip() if fold else '')
    if alt: head += ' mystnb={"image": {"alt": "%s"}}' % alt
    if tags: head += ' tags=[' + ', '.join(f'"{t}"' for t in tags) + ']'
    return head + '\n' + t.strip() + '\n\n\n'
out = []
cut = s.index('# ## What each trick is worth')
top = s[:cut].rstrip('#\n ') + '\n\n\n'
exec(open('text.py').read())
i = top.index('# %% [markdown]\n# # What does each layer hold?'); j = top.index('# %%', i + 5)
top = top[:i] + md(INTRO) + top[j:]
for old, new in HEAD_CHANGES: 
    assert old in top, old[:60]
    top = top.replace(old, new)
top = top.replace('# ### The plain stack on digits\n','# In the linear world both sides can be computed.\n\n\n'+code(CHAIN)+md('### The plain stack on digits\n\nNow with networks, and nothing is linear any more. Two perceptrons look up, from $x$ to $z_2$ and from $z_2$ to $z_1$; two look down.'))
out.append(top)
i = s.index('# %% tags=["tricks", "depth", "depth_controls"]\ndef width_for'); j = s.index('# %% [markdown]\n# ## Does depth help?')
helpers = s[i:s.index('# %% tags=["tricks"]\ndef warmed')]
out += [md(ORDERS), helpers, code(SKIPPING), code(ORDERS_RUN), code(ORDERS_TABLE, fold=True), md(READ_ORDERS)]
i = s.index('# %% tags=["depth"]\ndef codes_of'); k = s.index('# %% tags=["depth"]\ndef priced')
out += [md(DEPTH), code(WIDTHS), s[k:], md(FLOW), open('flowtop.py').read()+'\n\n', code(CLOCK, fold=True), code(DEPTH_TABLE, fold=True), code(RATES_FIGURE, 'figure-B4', True, ALT_B4), md(READ_DEPTH)]
# the helpers of the probes must stand before the job cells that use them
probes = s[i:k]
body = ''.join(out)
body = body.replace('# %% tags=["depth"]\ndef priced', md(PROBES) + probes + '# %% tags=["depth"]\ndef priced')
rest = [md(WHERE), code(LIVE), code(AGREE, fold=True), md(READ_AGREE),
 code(SWAP), code(SWAP_FIGURE, 'opener', True, ALT_SWAP), code(SWAP_TABLE, fold=True), md(READ_SWAP), code(MOVE), code(WIDGET, 'explorer'), md(READ_WIDGET),
 md(TOLD), code(CONTROLS, fold=True), code(TOLD_TABLE, fold=True), code(C12_FIGURE, 'figure-C12', True, ALT_C12), md(READ_TOLD),
 md(COARSE), code(COARSE_CELL), code(COARSE_FIGURE, '', True, ALT_COARSE), code(COARSE_TABLE, fold=True), md(READ_COARSE),
 md(BITS), code(ANS), code(ANS2), code(TABLES), code(PUSH), code(POP), code(PACKED), code(FILES, fold=True), md(READ_BITS), md(READ_FLOATS), code(FLOATS),
 md(BREAK), code(BREAK_CELL), code(BREAK_FIGURE, '', True, ALT_BREAK), code(BREAK_PRINT), md(READ_BREAK),
 md('## Verdicts'), code(VERDICT_CODE), code(VERDICT_DIFF), code(VERDICT_B4), code(VERDICT_C12), md(KEEP)]
for title, text, sol in EXERCISES:
    rest.append(md(f'### {title}\n\n{text}'))
    for cell in sol: rest.append(code('# @title Solution\n' + cell if cell is sol[0] else cell, fold=True))
rest.append(md(SOURCES))
whole = body + ''.join(rest)
whole = whole.replace('"tricks", ', '').replace(' tags=["tricks"]', '')
open('12n.py', 'w').write(whole)
