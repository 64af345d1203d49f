"""One training step of recurrent layers: forward, loss, backward. compare.py runs it.

    python benchmarks/recurrent.py [--threads N] [--rounds N]

The cells are called in a loop over the same sequence, as decoders and hand-written networks do.
"""

import compare

BATCH, LENGTH, SIZE = 32, 64, 256


def cases(T):
    nn = T.nn
    T.manual_seed(0)
    layers = {
        "LSTM": nn.LSTM(SIZE, SIZE),
        "LSTM, 2 layers": nn.LSTM(SIZE, SIZE, 2),
        "LSTM, bidirectional": nn.LSTM(SIZE, SIZE, bidirectional=True),
        "LSTM, projections of 128": nn.LSTM(SIZE, SIZE, proj_size=128),
        "LSTM, float64": nn.LSTM(SIZE, SIZE, dtype=T.float64),
        "GRU": nn.GRU(SIZE, SIZE),
        "GRU, 2 layers": nn.GRU(SIZE, SIZE, 2),
        "GRU, bidirectional": nn.GRU(SIZE, SIZE, bidirectional=True),
        "RNN": nn.RNN(SIZE, SIZE),
        "RNN, bidirectional": nn.RNN(SIZE, SIZE, bidirectional=True),
    }
    found = {name: train(T, layer, LENGTH, BATCH) for name, layer in layers.items()}
    found["LSTM, hidden 64, batch 16"] = train(T, nn.LSTM(64, 64), LENGTH, 16)
    found["LSTM, hidden 512, batch 64"] = train(T, nn.LSTM(512, 512), 32, 64)
    found["LSTM, batch 1"] = train(T, nn.LSTM(SIZE, SIZE), LENGTH, 1)
    found["LSTM, packed"] = train(T, nn.LSTM(SIZE, SIZE), LENGTH, BATCH, packed=True)
    found["LSTM, evaluation"] = evaluate(T, nn.LSTM(SIZE, SIZE))
    found["GRU, evaluation"] = evaluate(T, nn.GRU(SIZE, SIZE))
    for cell in (nn.LSTMCell(SIZE, SIZE), nn.GRUCell(SIZE, SIZE), nn.RNNCell(SIZE, SIZE)):
        found[type(cell).__name__] = train_cell(T, cell)
    return found


def train(T, layer, length, batch, packed=False):
    dtype = next(layer.parameters()).dtype
    x = T.randn(length, batch, layer.input_size, dtype=dtype)
    if packed:
        lengths = [length - k for k in range(batch)]
        x = T.nn.utils.rnn.pack_padded_sequence(x, lengths)

    def step():
        layer.zero_grad()
        out = layer(x)[0]
        (out.data if packed else out).sum().backward()

    return step


def evaluate(T, layer):
    x = T.randn(LENGTH, BATCH, layer.input_size)

    def step():
        with T.no_grad():
            layer(x)

    return step


def train_cell(T, cell):
    x = T.randn(LENGTH, BATCH, cell.input_size)
    pair = type(cell).__name__ == "LSTMCell"

    def step():
        cell.zero_grad()
        state, outs = None, []
        for t in range(LENGTH):
            state = cell(x[t], state)
            outs.append(state[0] if pair else state)
        T.stack(outs).sum().backward()

    return step


if __name__ == "__main__":
    compare.main(cases, unit="ms", scale=1e3, seconds=0.7)
