import torch

from magtkd.encoders import FeatureEncoder


def test_encodes_each_utterance_alone() -> None:
    encoder = FeatureEncoder(input_dim=7, hidden_dim=5, dropout=0.3).eval()
    features = torch.randn(11, 7)
    hidden = encoder(features)
    assert hidden.shape == (11, 5)
    torch.testing.assert_close(encoder(features[3:4]), hidden[3:4])


def test_ignores_scale_and_shift_of_an_utterance() -> None:
    encoder = FeatureEncoder(input_dim=7, hidden_dim=5, dropout=0.0)
    features = torch.randn(11, 7)
    torch.testing.assert_close(encoder(features * 13 + 17), encoder(features), atol=1e-4, rtol=1e-4)


def test_constant_features_stay_finite() -> None:
    encoder = FeatureEncoder(input_dim=7, hidden_dim=5, dropout=0.0)
    assert encoder(torch.zeros(2, 7)).isfinite().all()


def test_dropout_only_in_training() -> None:
    encoder = FeatureEncoder(input_dim=7, hidden_dim=101, dropout=0.5)
    features = torch.randn(3, 7)
    assert (encoder(features) == 0).any()
    assert not (encoder.eval()(features) == 0).any()
