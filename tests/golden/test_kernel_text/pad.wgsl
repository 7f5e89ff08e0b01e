// k00_pad: out = pad(x)
//   test_kernel_text.py:33: "pad": lambda: functions.pad(_x(4), ((1, 2),)),
// x: f32[4]   out: f32[7]
// 1 element per invocation, workgroup 64; 44 bytes, 0 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 7u) {
        return; // no barriers below
    }
    let v_x = t_x[i - 1u];
    let v_pad = select(0.0f, v_x, ((i - 1u) < 4u));
    t_out[i] = v_pad;
}
