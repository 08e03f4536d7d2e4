import re,sys,time,os
import matplotlib; matplotlib.use('Agg')
import torch; torch.set_num_threads(1)
g={'__name__':'x'}
for c in re.split(r'(?m)^(?=# %%)',open('./14.py').read()):
    head=c.splitlines()[0] if c.strip() else ''
    if not any(t in head for t in('"imports"','"parameters"','"portraits"')) or 'five-seeds' in head: continue
    exec(compile(c,'cell','exec'),g)
import vaelib,types
g['seed']=100
a=torch.load('./po.pt'); I_=vaelib.data.Images
p=types.SimpleNamespace(known=I_(a[0],a[1]),chosen=I_(a[2],a[3]),asked=I_(a[4],a[5]),pairs=a[6],x=a[6].flatten(0,1)[:,None])
r=torch.load('./re.pt',weights_only=False)
for name in sys.argv[1:]:
    t=time.time(); row=g['portrait_row'](name,p,r); row.pop('told'); print(name,f'{time.time()-t:.0f} s',{k:(round(v,3) if isinstance(v,float) else v) for k,v in row.items()},flush=True)
