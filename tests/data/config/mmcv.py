classes = (
    'a',
    'b',
    'c',
)
data = dict(
    samples_per_gpu=2,
    test=dict(
        classes=(
            'a',
            'b',
            'c',
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                flip=False,
                img_scale=(
                    512,
                    384,
                ),
                transforms=[
                    dict(keep_ratio=True, type='Resize'),
                    dict(type='RandomFlip'),
                    dict(
                        mean=[
                            113.05697120320283,
                            116.28,
                            103.53,
                        ],
                        std=[
                            58.395,
                            57.12,
                            57.375,
                        ],
                        to_rgb=True,
                        type='Normalize'),
                    dict(size_divisor=32, type='Pad'),
                    dict(keys=[
                        'img',
                    ], type='Collect'),
                ],
                type='MultiScaleFlipAug'),
        ],
        type='CocoDataset'))
img_norm_cfg = dict(
    mean=[
        113.05697120320283,
        116.28,
        103.53,
    ],
    std=[
        58.395,
        57.12,
        57.375,
    ],
    to_rgb=True)
model = dict(
    backbone=dict(
        base_channels=4,
        depth=18,
        norm_cfg=dict(requires_grad=True, type='BN'),
        num_stages=4,
        out_indices=(
            0,
            1,
            2,
            3,
        ),
        style='pytorch',
        type='ResNet'),
    bbox_head=dict(
        anchor_generator=dict(
            octave_base_scale=8,
            ratios=[
                1.0,
            ],
            scales_per_octave=1,
            strides=[
                8,
                16,
                32,
                64,
                128,
            ],
            type='AnchorGenerator'),
        feat_channels=32,
        in_channels=32,
        loss_cls=dict(beta=2.0, type='QualityFocalLoss', use_sigmoid=True),
        num_classes=3,
        reg_max=16,
        stacked_convs=1,
        type='GFLHead'),
    neck=dict(
        add_extra_convs='on_output',
        in_channels=[
            4,
            8,
            16,
            32,
        ],
        num_outs=5,
        out_channels=32,
        start_level=1,
        type='FPN'),
    pretrained='torchvision://resnet18',
    type='GFL')
test_cfg = dict(
    max_per_img=100,
    nms=dict(iou_thr=0.6, type='nms'),
    nms_pre=1000,
    score_thr=0.05)
