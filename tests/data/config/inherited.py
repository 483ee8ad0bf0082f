/home/me/it's/configs/_base_/cells.py
# A file and what it inherits from, one after the other, as mmdetection 2.0 kept them.
"""The base."""
import os

img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
data_root = os.environ.get('DATA', 'data/') + 'cells/'
classes = ['a', 'b', 'c']  # in the order of their ids
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=(1333, 800),
        flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='Normalize', **img_norm_cfg),
            dict(type='Pad', size_divisor=32),
        ])
]
data = dict(
    train=dict(type='CocoDataset', ann_file=data_root + 'train.json', classes=classes),
    test=dict(ann_file=data_root + 'test.json', classes=classes, pipeline=test_pipeline))
model = dict(
    type='GFL',
    backbone=dict(type='ResNet', depth=18, base_channels=4, style='pytorch'),
    neck=dict(type='FPN', start_level=1, add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(type='GFLHead', num_classes=80, reg_max=16))

/home/me/it's/configs/cells_bgr.py
_base_ = ['_base_/cells.py']
model = dict(
    neck=dict(add_extra_convs='on_output'),
    bbox_head=dict(num_classes=3, anchor_generator=dict(strides=[8, 16, 32, 64, 128])))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0] * 3, to_rgb=False)
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1., .5, 1e-0], to_rgb=False)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', img_scale=[(640, 480)], keep_ratio=True),
    dict(type='Normalize', **img_norm_cfg),
]
data = dict(test=dict(pipeline=test_pipeline))
