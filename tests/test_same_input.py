"""The same files through the loader of evaluation and every backend: equal inputs, equal results."""

import io

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from PIL import Image

import mbv2det
from mbv2det.build import build_model
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.data.folder import read_folder
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.predictor import Predictor
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import SampleKey
from mbv2det.weights.header import WeightsInfo

pytestmark = pytest.mark.usefixtures("one_thread")
