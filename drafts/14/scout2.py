"""NAME START END SHARE EPOCHS [lr bs cos] : on chapter code."""
import re,sys,time,os
import matplotlib; matplotlib.use('Agg')
import torch; torch.set_num_threads(1)
src=open('./chapter.py').read()
g={'__name__':'x'}
for c in re.split(r'(?m)^(?=# %%)',src):
    head=c.splitlines()[0] if c.strip() else ''
    if not (('"sprites"' in head or '"imports"' in head or '"parameters"' in head)) or 'five-seeds' in head: continue
    exec(compile(c,'cell','exec'),g)
from functools import partial
import vaelib
from vaelib.optimizers import Muon, warm_cosine
name=sys.argv[1]; start,end,share=map(float,sys.argv[2:5]); epochs=int(sys.argv[5])
lr=float(os.environ.get('LR',.02)); bs=int(os.environ.get('BS',256)); seed=int(os.environ.get('SEED',100))
g['seed']=0
import types
d=torch.load('./sp.pt'); I_=vaelib.data.Images
sprites=types.SimpleNamespace(x=d['x'],pairs=d['pairs'],known=I_(d['kx'],d['ky']),asked=I_(d['ax'],d['ay']))
g['seed']=seed
g['sprite_vae'].__globals__['seed']=seed
import math
steps=epochs*math.ceil(1e5/bs)
torch.manual_seed(seed)
hid=tuple(map(int,os.environ.get('HID','128,128').split(',')))
kind=vaelib.posteriors.full_covariance if name=='full' else vaelib.posteriors.normal
vae=vaelib.mlp_vae(10,hid,posterior=kind,activation='silu',norm='layer',x_shape=(1,32,32))
falling=g['falling'](start,end,share*steps)
beta=partial(vaelib.elbo,beta=falling)
obj={'fall':beta,'vae':vaelib.elbo,'pairs':vaelib.elbo,'pairsfall':beta,'full':vaelib.elbo}
if name=='tcfall':
    def tcfall(draw,step): return vaelib.elbo(draw)-(falling(step)-1)*g['total_correlation'](draw,100_000)
    obj[name]=tcfall
if name=='critic': obj[name]=g['Critic'](10,start)
model,data=vae,sprites.x
if name.startswith('pairs'): model,data=g['Pairs'](vae),sprites.pairs
style=dict(epochs=epochs,batch_size=bs,seed=seed,optimizer=partial(Muon,lr=lr),objective=obj[name],clip=100.)
if os.environ.get('COS'): style['schedule']=warm_cosine
t=time.process_time(); vaelib.fit(model,data,**style); t=time.process_time()-t
D=g['disentanglement']; P=g['predictability']
z=g['means'](vae,sprites.asked.x); y=sprites.asked.y[:,1:]
zk=g['means'](vae,sprites.known.x); yk=sprites.known.y[:,1:]
I=D.factor_information(z,y); H=g['SIZES'].double().log(); top=I.topk(2,0).values
d=P.dci(zk,yk,z,y); p=g['prices'](vae,sprites.asked.x[:2000])
turn=torch.tensor(g['turns_told'](z,y)).max(1).values
print('RESULT',sys.argv[1:],{k:os.environ[k] for k in('LR','BS','COS','HID','SEED') if k in os.environ},f'{t:.0f}s MIG {D.mig(z,y):.3f}',{k:round(v,3) for k,v in d.items()},'best',(top[0]/H).round(decimals=2).tolist(),'2nd',(top[1]/H).round(decimals=2).tolist(),'turn',turn.round(decimals=2).tolist(),{k:round(v,1) for k,v in p.items()},flush=True)
