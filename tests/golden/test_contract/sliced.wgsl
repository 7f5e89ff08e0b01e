// product: y = matmul → broadcast → add(x, w, bias)
// x: f32[30, 16]   w: f32[16, 36]   bias: f32[36]   y: f32[30, 36]
// sliced: 4x4 per invocation, workgroup 64, 8 slices; 8,688 bytes, 35,640 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> t_bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> t_y: array<vec4<f32>>;

// Adds a row's four neighbours times four rows of a column quad.
fn add_product(sum: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
    let first_two = fma(vec4f(a.y), b[1], fma(vec4f(a.x), b[0], sum));
    return fma(vec4f(a.w), b[3], fma(vec4f(a.z), b[2], first_two));
}

var<workgroup> parts: array<vec4f, 256>;

// A barrier below: no invocation leaves early. Those without a tile of their own compute the last
// one once more, and store nothing.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let slice = thread / 8u;
    let wanted = (group.y * 9u + group.x) * 8u + thread % 8u;
    let tile = min(wanted, 71u);
    let tile_column = tile % 9u;
    let tile_row = tile / 9u;
    let row_2 = min(tile_row * 4u + 2u, 29u);
    let row_3 = min(tile_row * 4u + 3u, 29u);
    var sum_0_0 = vec4f();
    var sum_1_0 = vec4f();
    var sum_2_0 = vec4f();
    var sum_3_0 = vec4f();
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll a short loop and
    // take seconds to compile.
    for (var k = slice; k < 4u + group.z; k += 8u) {
        let v_x = t_x[tile_row * 16u + k];
        let v_x_1 = t_x[tile_row * 16u + k + 4u];
        let v_x_2 = t_x[row_2 * 4u + k];
        let v_x_3 = t_x[row_3 * 4u + k];
        let v_w = t_w[k * 36u + tile_column];
        let v_w_1 = t_w[k * 36u + tile_column + 9u];
        let v_w_2 = t_w[k * 36u + tile_column + 18u];
        let v_w_3 = t_w[k * 36u + tile_column + 27u];
        let b_0 = mat4x4f(v_w, v_w_1, v_w_2, v_w_3);
        let a_0 = v_x;
        sum_0_0 = add_product(sum_0_0, a_0, b_0);
        let a_1 = v_x_1;
        sum_1_0 = add_product(sum_1_0, a_1, b_0);
        let a_2 = v_x_2;
        sum_2_0 = add_product(sum_2_0, a_2, b_0);
        let a_3 = v_x_3;
        sum_3_0 = add_product(sum_3_0, a_3, b_0);
    }
    parts[0u + thread] = sum_0_0;
    parts[64u + thread] = sum_1_0;
    parts[128u + thread] = sum_2_0;
    parts[192u + thread] = sum_3_0;
    workgroupBarrier();
    if (slice > 0u || wanted >= 72u) {
        return; // no barriers below
    }
    for (var other = 1u; other < 8u; other++) {
        sum_0_0 += parts[0u + thread + other * 8u];
        sum_1_0 += parts[64u + thread + other * 8u];
        sum_2_0 += parts[128u + thread + other * 8u];
        sum_3_0 += parts[192u + thread + other * 8u];
    }
    // A copy of the sums that can be indexed; were the sums an array, they would live in memory.
    var tile_sums = array<vec4f, 4>(sum_0_0, sum_1_0, sum_2_0, sum_3_0);
    for (var i = 0u; i < 4u + group.z; i++) {
        let row = tile_row * 4u + i;
        let quad = tile_column;
        if (row >= 30u || quad >= 9u) {
            continue;
        }
        let value = tile_sums[i];
        let v_bias = t_bias[quad];
        let v_y = value + v_bias;
        t_y[row * 9u + quad] = v_y;
    }
}
