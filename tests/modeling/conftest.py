"""Steps of training that several methods take."""

import pytest
import torch


@pytest.fixture(scope="session")
def losses_of_ten_steps():
    """Trains a model on one batch; returns the loss, or another part of the output, of each step."""

    def train(model, learning_rate, *inputs, part="loss", momentum=None, **named):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
        losses = []
        for _ in range(10):
            output = model(*inputs, **named)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            if momentum is not None:
                model.update_teacher(momentum)
            losses.append(output[part].item())
        return losses

    return train
