import re,sys,time
import matplotlib; matplotlib.use('Agg')
import torch; torch.set_num_threads(1)
src=open('drafts/14/chapter.py').read()
g={'__name__':'x'}
for c in re.split(r'(?m)^(?=# %%)',src):
    if c.startswith('# %% [markdown]') or '"setup"' in c or not c.startswith('# %%'): continue
    c=c.replace('budget = "full"','budget = "smoke"')
    t=time.time()
    exec(compile(c,c.splitlines()[1][:50],'exec'),g)
    if time.time()-t>1: print(f'{time.time()-t:.1f}', c.splitlines()[1])
    if 'rows' in c and 'vaelib.table(rows' in c:
        for r in g['rows']: print(r)
r=g['result']
for k,v in r.items():
    if isinstance(v,dict): print(k,{a:(round(b,3) if isinstance(b,float) else len(b)) for a,b in v.items()})
