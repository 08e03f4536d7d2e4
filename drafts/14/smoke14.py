import re,sys,time
import matplotlib; matplotlib.use('Agg')
import torch; torch.set_num_threads(1)
src=open(sys.argv[1]).read(); want=sys.argv[2:]
g={'__name__':'x'}
for c in re.split(r'(?m)^(?=# %%)',src):
    head=c.splitlines()[0] if c.strip() else ''
    if c.startswith('# %% [markdown]') or '"setup"' in c or not c.startswith('# %%'): continue
    if want and not any(f'"{w}"' in head for w in want+['imports','parameters']): continue
    c=c.replace('budget = "full"','budget = "smoke"')
    t=time.time()
    exec(compile(c,c.splitlines()[1][:50],'exec'),g)
    if time.time()-t>1: print(f'{time.time()-t:.1f}', c.splitlines()[1])
r=g['result']
for k,v in r.items():
    if isinstance(v,dict): print(k,{a:(round(b,3) if isinstance(b,float) else len(b)) for a,b in v.items()})
import json
json.dump(r,open(f'./fake_{want[0]}.json','w'))
