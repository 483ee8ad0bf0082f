default_scope = 'mmdet'
metainfo = dict(
    classes=(
        'red cell',
        '"white" cell',
        'plättchen',
    ),
    palette=[
        (
            1,
            2,
            3,
        ),
    ])
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
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[
            103.53,
            116.28,
            123.675,
        ],
        pad_size_divisor=32,
        std=[
            1.0,
            1.0,
            1.0,
        ],
        type='DetDataPreprocessor'),
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
    test_cfg=dict(
        max_per_img=100,
        min_bbox_size=0,
        nms=dict(iou_threshold=0.5, type='nms'),
        nms_pre=1000,
        score_thr=0.05),
    type='GFL')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(
                640,
                480,
            ), type='Resize'),
            dict(meta_keys=(
                'img_id',
                'img_path',
            ), type='PackDetInputs'),
        ],
        type='CocoDataset'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        keep_ratio=True,
        scale=[
            (
                1333,
                480,
            ),
            (
                1333,
                960,
            ),
        ],
        type='RandomResize'),
]
work_dir = "work_dirs/it's here"
