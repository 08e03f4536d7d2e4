p='book/glossary.md'; s=open(p).read()
def after(anchor, text):
    global s
    i=s.index(anchor); j=s.index('\n\n', i)
    s=s[:j]+'\n\n'+text.strip()+s[j:]
after('**Latent layer**','''**Hierarchy.** A model of several latent layers, each given those above it. Its rate is a sum, a term a layer.
[Chapter 12](models/12_hierarchies.ipynb).

**Top-down inference**, the ladder. The layers of q are drawn in the order in which the model dreams, each given those
above it and x. [Chapter 12](models/12_hierarchies.ipynb).''')
after('**Bits per dimension.**','''**Bits back.** A way to write x in as many bits as the negative ELBO says: z is drawn from bits that are there
already, and those return at decoding. [Chapter 12](models/12_hierarchies.ipynb).

**ANS**, asymmetric numeral systems. A coder that is a stack: the symbol that went in last comes out first. [Chapter
12](models/12_hierarchies.ipynb).''')
open(p,'w').write(s)
p='book/references.md'; s=open(p).read()
def chapter(anchor, old, new):
    global s
    i=s.index(anchor); j=s.index(old,i); s=s[:j]+new+s[j+len(old):]
chapter('*NVAE: A Deep','[arXiv:2007.03898](https://arxiv.org/abs/2007.03898).','[arXiv:2007.03898](https://arxiv.org/abs/2007.03898). Posteriors relative to the prior. Chapter 12.')
chapter('*Very Deep VAEs','[arXiv:2011.10650](https://arxiv.org/abs/2011.10650).','[arXiv:2011.10650](https://arxiv.org/abs/2011.10650). Depth, and what keeps it stable. Chapter 12.')
new='''## Hierarchies

- C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby and O. Winther, *Ladder Variational Autoencoders*, NeurIPS 2016,
  [arXiv:1602.02282](https://arxiv.org/abs/1602.02282). From the top down. Chapter 12.
- S. Zhao, J. Song and S. Ermon, *Learning Hierarchical Features from Generative Models*, ICML 2017,
  [arXiv:1702.08396](https://arxiv.org/abs/1702.08396). Why a stack's lowest layer is enough. Chapter 12.
- J. Townsend, T. Bird and D. Barber, *Practical Lossless Compression with Latent Variables Using Bits Back Coding*,
  ICLR 2019, [arXiv:1901.04866](https://arxiv.org/abs/1901.04866). The ELBO as a file. Chapter 12.
- F. H. Kingma, P. Abbeel and J. Ho, *Bit-Swap: Recursive Bits-Back Coding for Lossless Compression with Hierarchical
  Latent Variables*, ICML 2019, [arXiv:1905.06845](https://arxiv.org/abs/1905.06845). Layer by layer. Chapter 12.
- J. Duda, *Asymmetric Numeral Systems*, 2013, [arXiv:1311.2540](https://arxiv.org/abs/1311.2540). The stack of bits.
  Chapter 12.

'''
i=s.index('## Training\n'); s=s[:i]+new+s[i:]
open(p,'w').write(s)
p='CHANGELOG.md'; s=open(p).read()
a=s.index('- The book: chapters 01 to 11'); b=s.index('- `vaelib`: `VAE`')
s=s[:a]+'''- The book: chapters 01 to 12 (latent variables, from autoencoder to VAE, the ELBO, reparameterization, a first
  VAE on MNIST, training fast and unbreakable, evaluation, likelihoods and CIFAR-10, posterior collapse, tighter
  bounds, learned priors, hierarchies), each with stored outputs and a verdict; pages for claims, notation, glossary,
  references and the package, where every public name has an example that runs.
'''+s[b:]
open(p,'w').write(s)
