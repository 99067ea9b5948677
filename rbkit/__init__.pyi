# For type checkers and editors: the lazy names of __init__.py, spelt out.
from rbkit.balance.gram import GramTracker as GramTracker
from rbkit.balance.mixers.ado import ADO as ADO
from rbkit.balance.mixers.aioli import Aioli as Aioli
from rbkit.balance.mixers.base import Mixer as Mixer
from rbkit.balance.mixers.check import check_mixer as check_mixer
from rbkit.balance.mixers.dga import DGA as DGA
from rbkit.balance.mixers.doge import DoGE as DoGE
from rbkit.balance.mixers.dro import DoReMi as DoReMi
from rbkit.balance.mixers.dro import GroupDRO as GroupDRO
from rbkit.balance.mixers.fixed import Fixed as Fixed
from rbkit.balance.mixers.fixed import Proportional as Proportional
from rbkit.balance.mixers.fixed import Stratified as Stratified
from rbkit.balance.mixers.fixed import Target as Target
from rbkit.balance.mixers.odm import ODM as ODM
from rbkit.balance.mixers.rnb import RnB as RnB
from rbkit.balance.mixers.skill_it import SkillIt as SkillIt
from rbkit.balance.mixers.torchjd import MGDA as MGDA
from rbkit.balance.mixers.torchjd import UPGrad as UPGrad
from rbkit.balance.sampler import MixtureSampler as MixtureSampler
from rbkit.balance.signals import Observation as Observation
from rbkit.data.corpus import about as about
from rbkit.data.corpus import load_corpus as load_corpus
from rbkit.errors import InputError as InputError
from rbkit.errors import RbkitWarning as RbkitWarning
from rbkit.regroup.domains import Domains as Domains
from rbkit.regroup.editor import Editor as Editor
from rbkit.regroup.embedders import TfidfEmbedder as TfidfEmbedder
from rbkit.regroup.embedders import TransformerEmbedder as TransformerEmbedder
from rbkit.regroup.hdbscan import UmapHDBSCAN as UmapHDBSCAN
from rbkit.regroup.kmeans import KMeans as KMeans
from rbkit.regroup.pipeline import regroup as regroup
from rbkit.regroup.sources import SourceLabels as SourceLabels
from rbkit.regroup.ward import WardTree as WardTree
from rbkit.report.sweep.pipeline import sweep as sweep
from rbkit.show.explorer.explorer import explore as explore
from rbkit.show.live.panel import attach as attach
from rbkit.show.scrub.scrubber import scrub as scrub
from rbkit.train.counterfactual import replay as replay
from rbkit.train.loop import live as live
from rbkit.train.run import Run as Run
from rbkit.train.trainer import Mixture as Mixture
from rbkit.train.trainer import MixtureTrainer as MixtureTrainer
from rbkit.train.training import train as train

__version__: str
__all__: list[str]
