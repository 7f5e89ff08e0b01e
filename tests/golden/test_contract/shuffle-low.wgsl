// product: y = matmul → broadcast → add(x, w, bias)
// x: f32[30, 16]   w: f32[16, 36]   bias: f32[36]   y: f32[30, 36]
// shuffle: 3x4 per invocation, workgroup 8; 8,688 bytes, 35,640 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> t_bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> t_y: array<vec4<f32>>;

// Adds a row's four neighbours times four rows of a column quad.
fn add_product(sum: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
    let first_two = fma(vec4f(a.y), b[1], fma(vec4f(a.x), b[0], sum));
    return fma(vec4f(a.w), b[3], fma(vec4f(a.z), b[2], first_two));
}

// One subgroup of eight lanes. Every lane must reach the shuffles: no lane leaves early, reads
// outside the operands are held at the edge, and only stores are guarded.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let tile = group.y * 20u + group.x;
    let tile_row = tile % 10u;
    let tile_column = tile / 10u;
    let row_0 = min(tile_row * 3u + lane, 29u);
    let column_0 = min(tile_column * 8u + lane, 8u);
    var sum_0_0 = vec4f();
    var sum_1_0 = vec4f();
    var sum_2_0 = vec4f();
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll a short loop and
    // take seconds to compile.
    for (var k = 0u; k < 4u + group.z; k++) {
        let v_x = t_x[row_0 * 4u + k];
        let v_w = t_w[k * 36u + column_0];
        let v_w_1 = t_w[k * 36u + column_0 + 9u];
        let v_w_2 = t_w[k * 36u + column_0 + 18u];
        let v_w_3 = t_w[k * 36u + column_0 + 27u];
        let b_0 = mat4x4f(v_w, v_w_1, v_w_2, v_w_3);
        let a_0 = subgroupShuffle(v_x, 0u);
        sum_0_0 = add_product(sum_0_0, a_0, b_0);
        let a_1 = subgroupShuffle(v_x, 1u);
        sum_1_0 = add_product(sum_1_0, a_1, b_0);
        let a_2 = subgroupShuffle(v_x, 2u);
        sum_2_0 = add_product(sum_2_0, a_2, b_0);
    }
    // A copy of the sums that can be indexed; were the sums an array, they would live in memory.
    var tile_sums = array<vec4f, 3>(sum_0_0, sum_1_0, sum_2_0);
    for (var i = 0u; i < 3u + group.z; i++) {
        let row = tile_row * 3u + i;
        let quad = tile_column * 8u + lane;
        if (row >= 30u || quad >= 9u) {
            continue;
        }
        let value = tile_sums[i];
        let v_bias = t_bias[quad];
        let v_y = value + v_bias;
        t_y[row * 9u + quad] = v_y;
    }
}
